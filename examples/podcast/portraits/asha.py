"""Asha, the woman of the podcast example: long dark hair, a teal blouse, small gold earrings; used by draw.

The one invariant: everything is drawn in face coordinates (see features).
"""

# fmt: off
from features import EyeStyle, LipStyle, Skin, brow, eye, face_shading, lips, nose
from paint import Point, clip, curve, ellipse, gradient, group, hair, line, mirrored, path, shape
from setting import backdrop, picture


def asha(width: int, height: int) -> str:
    """A woman with long dark wavy hair, a teal blouse and small gold earrings."""
    skin = Skin("#f4c9a4", "#d99f78", "#b8754f", "#7f452c", "#3a1a12", "#d9705c")
    eyes = EyeStyle(("#b57a42", "#6a3a1c", "#2c150b"), "#180b09", 5.0, 6, "#9a5a48", 0.94, 1.06)
    mouth = LipStyle("#a8434a", "#c65f60", "#f3a79d", "#4a1420", 1.04, 0.94)
    outline = mirrored([(0, -246), (96, -232), (160, -172), (186, -84), (188, 0), (182, 70), (164, 134), (122, 200),
                        (72, 248), (30, 266), (0, 268)])
    head = curve(outline, closed=True)
    eye_l, eye_r, mouth_ = eye(-1, eyes, skin), eye(1, eyes, skin), lips(mouth, skin)
    dark = ("#140a0b", "#20110f", "#2e1a15", "#452a20", "#6b4431")
    defs = [clip("head", head), eye_l[0], eye_r[0], mouth_[0],
            backdrop(width, height, "#f7dcc0", "#dfa98c", "#a8705f"),
            gradient("skin", [(0, skin.light, 1), (0.5, skin.base, 1), (1, skin.shade, 1)],
                     vector='cx="-60" cy="-60" r="380"'),
            gradient("cloth", [(0, "#2f9a94", 1), (0.55, "#156a6d", 1), (1, "#0a3b44", 1)],
                     vector='x1="-260" y1="380" x2="260" y2="640"'),
            gradient("neck", [(0, skin.deep, 1), (0.5, skin.shade, 1), (1, skin.base, 1)],
                     vector='x1="0" y1="220" x2="0" y2="420"')]
    body = [
        _asha_back_hair(dark),
        path(curve([(-92, 170), (-92, 300), (-118, 364), (-180, 420), (-190, 640), (190, 640), (180, 420), (118, 364),
                    (92, 300), (92, 170)], closed=True), fill="url(#neck)"),
        ellipse((26, 276), (94, 60), skin.deep, opacity=0.6, blur=24),
        shape([(-84, 330), (-60, 300), (-50, 400), (-90, 420)], skin.light, opacity=0.4, blur=14),
        line([(-150, 428), (-90, 430), (-30, 452)], skin.deep, 5, opacity=0.35, blur=4),
        line([(150, 428), (90, 430), (34, 452)], skin.deep, 6, opacity=0.45, blur=4),
        _asha_blouse(),
    ]
    face = [
        path(head, fill="url(#skin)"),
        group([*face_shading(skin, jaw=0),
               shape([(-210, -260), (0, -250), (-30, -190), (-120, -140), (-168, -40), (-214, 20)], skin.deep,
                     opacity=0.5, blur=18),
               shape([(210, -260), (0, -250), (60, -190), (130, -130), (166, -40), (214, 40)], skin.deep, opacity=0.55,
                     blur=18)], clip_to="head"),
        nose(skin, width=0.9), mouth_[1], eye_l[1], eye_r[1],
        brow(-1, ("#2a1512", "#3a2018", "#1c0e0c"), thick=11, arch=4, seed=10),
        brow(1, ("#2a1512", "#3a2018", "#1c0e0c"), thick=11, arch=4, seed=90),
        ellipse((0, -58), (6, 6), "#8e1c2b", opacity=0.95), ellipse((-1.6, -60), (2, 1.6), "#f08a86", opacity=0.8),
    ]
    return picture(width, height, defs, [*body, *face, _asha_front_hair(dark), *_earrings()])


def _asha_back_hair(dark: tuple[str, ...]) -> str:
    mass = [(0, -338), (120, -326), (206, -262), (246, -150), (256, 0), (270, 120), (300, 240), (286, 350), (318, 450),
            (240, 560), (150, 520), (0, 420), (-150, 520), (-250, 560), (-322, 450), (-286, 350), (-304, 240),
            (-270, 120), (-254, 0), (-244, -150), (-204, -262), (-120, -326)]
    return shape(mass, dark[1]) + "".join(
        hair([(s * 190, -120), (s * 205, 60), (s * 170, 220), (s * 190, 360), (s * 150, 500)],
             [(s * 250, -120), (s * 268, 80), (s * 290, 240), (s * 276, 350), (s * 290, 520)],
             dark, count=150, width=5, seed=20 + s, jitter=3)
        for s in (-1, 1)
    )


def _asha_blouse() -> str:
    collar = [(-150, 400), (-90, 452), (0, 520), (90, 452), (150, 400), (250, 430), (350, 480), (420, 620), (430, 760),
              (-430, 760), (-420, 620), (-350, 480), (-250, 430)]
    return "".join([
        shape([(x, y + 6) for x, y in collar], "#000000", opacity=0.35, blur=10),
        shape(collar, "url(#cloth)"),
        shape([(-300, 470), (-200, 450), (-120, 560), (-150, 700), (-300, 700)], "#6fd0c4", opacity=0.28, blur=32),
        shape([(220, 460), (400, 560), (430, 760), (120, 760), (160, 600)], "#04222a", opacity=0.5, blur=32),
        line([(-152, 402), (-90, 454), (0, 522), (90, 454), (152, 402)], "#e9b84f", 8),
        line([(-152, 399), (-90, 451), (0, 519), (90, 451), (152, 399)], "#ffe3a0", 2, opacity=0.8),
        line([(-190, 470), (-140, 560), (-150, 700)], "#08343c", 6, opacity=0.4, blur=6),
        line([(200, 470), (150, 570), (170, 700)], "#04222a", 7, opacity=0.5, blur=6),
    ])


def _asha_front_hair(dark: tuple[str, ...]) -> str:
    """Two falls of hair from a parting left of the middle, framing the face."""
    left: list[Point] = [(-34, -262), (-104, -204), (-154, -110), (-176, 6), (-182, 106), (-208, 206), (-184, 306),
                         (-222, 406), (-214, 486), (-238, 560)]
    left_out: list[Point] = [(-40, -340), (-166, -306), (-234, -190), (-246, -30), (-258, 106), (-304, 216),
                             (-282, 320),
                             (-312, 420), (-282, 500), (-246, 562)]
    right: list[Point] = [(-34, -262), (64, -220), (136, -134), (172, -10), (180, 106), (208, 200), (186, 300),
                          (226, 400), (216, 480), (242, 556)]
    right_out: list[Point] = [(-36, -340), (116, -334), (222, -226), (248, -40), (260, 106), (306, 210), (286, 314),
                              (316, 414), (288, 494), (250, 558)]
    parts = []
    for i, s in enumerate((-1, 1)):
        near = [(s * 176, 250), (s * 196, 330), (s * 172, 400), (s * 196, 462), (s * 176, 524)]
        far = [(s * 250, 250), (s * 256, 330), (s * 240, 400), (s * 250, 462), (s * 184, 528)]
        parts.append(shape([(x + 6, y + 8) for x, y in [*near, *reversed(far)]], "#021519", opacity=0.45, blur=8))
        parts.append(shape([*near, *reversed(far)], dark[0]))
        parts.append(hair(near, far, dark, count=70, width=4, seed=30 + i, jitter=3))
    for i, (inner, outer) in enumerate(((left, left_out), (right, right_out))):
        parts.append(shape([(x + 6, y + 8) for x, y in [*inner[6:], *reversed(outer[6:])]], "#021519", opacity=0.45,
                           blur=8))
        parts.append(path(curve([*inner, *reversed(outer)], closed=True), fill=dark[1]))
        parts.append(hair(inner, outer, dark, count=330, width=4.2, seed=40 + i, jitter=4))
        shine_in = [(x * 0.5 + u * 0.5, y * 0.5 + v * 0.5) for (x, y), (u, v) in zip(inner, outer, strict=True)]
        parts.append(hair(shine_in[1:6], [(x * 1.06, y - 8) for x, y in shine_in[1:6]],
                          ("#8a5c42", "#a87452", "#6b4431"), count=70, width=3, seed=60 + i, jitter=9,
                          opacity=(0.15, 0.5)))
    parts.append(line([(-35, -330), (-38, -290), (-34, -256)], "#7f452c", 2, opacity=0.7))
    return "".join(parts)


def _earrings() -> list[str]:
    return [part for s in (-1, 1) for part in (
        ellipse((s * 192, 128), (7, 7), "#e9b84f"), ellipse((s * 192 - 2, 125), (2.5, 2.5), "#fff3cf"),
        ellipse((s * 192, 148), (9, 13), "#d99b2f"), ellipse((s * 192 - 3, 144), (3, 5), "#ffe9b0", opacity=0.9))]
