"""Asha and Ravi, the two people of the podcast example, each as one SVG; used by draw.

The one invariant: everything is drawn in face coordinates (see features), placed by one transform.
"""

from features import EyeStyle, LipStyle, Skin, brow, eye, face_shading, lips, nose
from paint import (
    Point,
    clip,
    curve,
    ellipse,
    gradient,
    group,
    hair,
    line,
    mirrored,
    path,
    shape,
    soft_filters,
)

PLACE = "translate(480 478) scale(0.9)"


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
    defs = [soft_filters(), clip("head", head), eye_l[0], eye_r[0], mouth_[0],
            _backdrop_defs(width, height, "#f7dcc0", "#dfa98c", "#a8705f"),
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
    return _picture(width, height, defs, [*body, *face, _asha_front_hair(dark), *_earrings()])


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
    left_out: list[Point] = [(-40, -340), (-166, -306), (-234, -190), (-246, -30), (-258, 106), (-304, 216), (-282, 320),
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
        parts.append(shape([*near, *reversed(far)], dark[0]) + hair(near, far, dark, count=70, width=4, seed=30 + i, jitter=3))
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


def ravi(width: int, height: int) -> str:
    """A man with short hair, a full beard, glasses and a denim-blue shirt over white."""
    skin = Skin("#e2b086", "#bd8359", "#945a38", "#5c321e", "#26120b", "#b8583f")
    eyes = EyeStyle(("#8f6a3c", "#54341a", "#22130a"), "#1a0e0a", 3.2, 0, "#7d4a32", 0.88, 1.06)
    mouth = LipStyle("#96524a", "#b4695c", "#e2a08c", "#3b1714", 0.9, 0.95)
    outline = mirrored([(0, -250), (100, -238), (172, -180), (202, -88), (205, 0), (200, 84), (186, 152), (156, 212),
                        (104, 256), (46, 276), (0, 279)])
    head = curve(outline, closed=True)
    eye_l, eye_r, mouth_ = eye(-1, eyes, skin), eye(1, eyes, skin), lips(mouth, skin)
    dark = ("#0f0a09", "#1b1210", "#2a1c16", "#3d2a20", "#57402f")
    defs = [soft_filters(), clip("head", head), eye_l[0], eye_r[0], mouth_[0],
            _backdrop_defs(width, height, "#cfe3e2", "#86aab3", "#3d5d70"),
            gradient("skin", [(0, skin.light, 1), (0.5, skin.base, 1), (1, skin.shade, 1)],
                     vector='cx="-60" cy="-60" r="390"'),
            gradient("cloth", [(0, "#5f86b8", 1), (0.5, "#365a8c", 1), (1, "#1c3358", 1)],
                     vector='x1="-300" y1="380" x2="260" y2="660"'),
            gradient("neck", [(0, skin.deep, 1), (0.55, skin.shade, 1), (1, skin.base, 1)],
                     vector='x1="0" y1="240" x2="0" y2="440"')]
    body = [
        path(curve([(-112, 150), (-114, 300), (-130, 380), (-150, 430), (-160, 660), (160, 660), (150, 430), (130, 380),
                    (114, 300), (112, 150)], closed=True), fill="url(#neck)"),
        ellipse((20, 290), (112, 60), "#2c150c", opacity=0.6, blur=24),
        _ravi_shirt(),
        *(_ear(s, skin) for s in (-1, 1)),
    ]
    face = [
        path(head, fill="url(#skin)"),
        group([*face_shading(skin, jaw=10),
               shape([(-230, -270), (230, -270), (214, -60), (176, -150), (90, -196), (-60, -200), (-168, -150),
                      (-214, -60)], skin.deep, opacity=0.5, blur=18)], clip_to="head"),
        nose(skin, width=1.06), _ravi_beard(dark), mouth_[1], _moustache(dark), eye_l[1], eye_r[1],
        brow(-1, dark[:4], thick=16, arch=1, seed=110), brow(1, dark[:4], thick=16, arch=1, seed=190),
    ]
    return _picture(width, height, defs, [*body, *face, _ravi_hair(dark), _glasses()])


def _ear(side: int, skin: Skin) -> str:
    at = lambda points: [(side * x, y) for x, y in points]  # noqa: E731
    return "".join([
        shape(at([(196, -20), (214, -38), (232, -26), (232, 14), (222, 58), (206, 82), (192, 70)]), skin.base),
        shape(at([(200, -14), (216, -24), (224, -8), (220, 24), (208, 50), (200, 40)]), skin.deep, opacity=0.5, blur=4),
        line(at([(204, -18), (220, -26), (226, -6), (222, 30), (212, 58)]), skin.light, 3, opacity=0.4, blur=1),
    ])


def _ravi_shirt() -> str:
    tee = [(-130, 388), (-80, 440), (0, 462), (80, 440), (130, 388), (200, 460), (120, 760), (-120, 760), (-200, 460)]
    sides = [[(s * x, y) for x, y in [(128, 376), (168, 392), (300, 432), (400, 500), (450, 640), (460, 780), (70, 780),
                                      (84, 640), (124, 500)]] for s in (-1, 1)]
    lapels = [[(s * x, y) for x, y in [(118, 362), (160, 378), (196, 420), (150, 520), (112, 470)]] for s in (-1, 1)]
    return "".join([
        shape(tee, "#eef0ee"),
        shape([(-60, 470), (60, 470), (80, 760), (-20, 760)], "#9aa6ae", opacity=0.5, blur=18),
        line([(-126, 392), (-78, 444), (0, 466), (78, 444), (126, 392)], "#c3cbd0", 7),
        *(shape(points, "#0e1a2e", opacity=0.5, blur=10) for points in sides),
        *(shape(points, "url(#cloth)") for points in sides),
        shape([(180, 470), (420, 540), (460, 780), (140, 780)], "#0c1c38", opacity=0.5, blur=32),
        shape([(-340, 470), (-200, 440), (-160, 600), (-260, 740)], "#9dbce2", opacity=0.3, blur=32),
        *(shape(points, "url(#cloth)") + line([*points[1:4]], "#1c3358", 3, opacity=0.7)
          + line([points[0], points[1], points[2]], "#9dbce2", 2, opacity=0.5) for points in lapels),
        line([(-84, 640), (-92, 780)], "#14284a", 3, opacity=0.7), line([(84, 640), (92, 780)], "#14284a", 3, opacity=0.7),
    ])


def _ravi_beard(dark: tuple[str, ...]) -> str:
    """A full, trimmed beard: a soft mass under many short hairs that follow the jaw."""
    mass = [(-206, 20), (-188, 70), (-150, 112), (-116, 142), (-98, 172), (-64, 200), (0, 210), (64, 200), (98, 172),
            (116, 142), (150, 112), (188, 70), (206, 20), (208, 110), (190, 190), (150, 250), (96, 292), (0, 312),
            (-96, 292), (-150, 250), (-190, 190), (-208, 110)]
    parts = [shape([(x * 0.95, y - 4 if y > 150 else y) for x, y in mass], dark[1], opacity=0.85, blur=6)]
    for s in (-1, 1):
        guides = [
            ([(204, 30), (206, 80), (196, 130)], [(172, 92), (186, 120), (184, 160)], 90),
            ([(184, 90), (192, 140), (176, 190)], [(112, 140), (134, 170), (136, 205)], 150),
            ([(172, 170), (160, 220), (124, 262)], [(84, 176), (88, 216), (74, 248)], 190),
            ([(118, 236), (90, 276), (50, 300)], [(40, 206), (36, 250), (20, 282)], 200),
            ([(44, 206), (34, 250), (22, 296)], [(0, 210), (0, 250), (0, 300)], 110),
        ]
        for k, (first, second, count) in enumerate(guides):
            parts.append(hair([(s * x, y) for x, y in first], [(s * x, y) for x, y in second], dark, count=count,
                              width=2.6, seed=300 + 10 * k + s, jitter=5, opacity=(0.3, 0.8)))
    parts.append(shape([(-120, 200), (-60, 230), (-40, 280), (-110, 262)], "#6b5140", opacity=0.3, blur=14))
    return "".join(parts)


def _moustache(dark: tuple[str, ...]) -> str:
    parts = []
    for s in (-1, 1):
        mass = [(0, 132), (30, 129), (60, 134), (94, 148), (116, 176), (96, 172), (64, 153), (30, 150), (0, 152)]
        parts.append(shape([(s * x, y) for x, y in mass], dark[1], opacity=0.8, blur=3))
        parts.append(hair([(s * x, y) for x, y in [(2, 134), (34, 133), (70, 140), (110, 174)]],
                          [(s * x, y) for x, y in [(4, 150), (32, 149), (64, 153), (100, 172)]], dark, count=150,
                          width=2.6, seed=400 + s, jitter=2.2, opacity=(0.4, 0.9)))
    return "".join(parts)


def _ravi_hair(dark: tuple[str, ...]) -> str:
    """Short hair swept up and to the viewer's right, with faded sides."""
    mass = [(-204, -16), (-196, -70), (-184, -124), (-164, -164), (-132, -194), (-84, -210), (-20, -216), (60, -212),
            (112, -198), (150, -172), (176, -136), (190, -100), (198, -60), (206, -16), (220, -60), (228, -160),
            (212, -262), (150, -336), (30, -366), (-90, -350), (-184, -292), (-228, -190), (-220, -70)]
    parts = [shape(mass, dark[1])]
    sweeps = [
        ([(-170, -170), (-190, -240), (-130, -310), (-20, -330)], [(-110, -200), (-120, -270), (-40, -320), (60, -330)], 230),
        ([(-120, -200), (-110, -280), (-10, -340), (120, -320)], [(40, -206), (70, -270), (140, -300), (190, -250)], 300),
        ([(30, -206), (80, -260), (160, -290), (210, -230)], [(150, -176), (180, -200), (206, -200), (220, -150)], 170),
    ]
    for k, (first, second, count) in enumerate(sweeps):
        parts.append(hair(first, second, dark, count=count, width=4, seed=500 + k, jitter=7))
    for s in (-1, 1):
        parts.append(hair([(s * 200, -190), (s * 204, -120), (s * 200, 50)], [(s * 226, -200), (s * 224, -120), (s * 210, 40)],
                          dark, count=120, width=2.6, seed=520 + s, jitter=4))
    parts.append(hair([(-110, -250), (-60, -310), (30, -336), (110, -318)], [(-60, -230), (0, -290), (70, -318), (140, -296)],
                      ("#7a5f49", "#5f4735", "#947660"), count=70, width=2.6, seed=540, jitter=8, opacity=(0.15, 0.5)))
    return "".join(parts)


def _glasses() -> str:
    """Thin round-square metal frames with a faint reflection."""
    parts = []
    for s in (-1, 1):
        rim = [(s * x, y) for x, y in [(26, -34), (58, -48), (112, -50), (154, -38), (163, 4), (150, 50), (108, 66), (60, 62),
                                       (30, 36)]]
        parts += [
            path(curve(rim, closed=True), fill="#e8f4ff", opacity=0.07),
            path(curve([(x, y + 4) for x, y in rim], closed=True), fill="none", opacity=0.35, blur=3,
                 extra='stroke="#2a120a" stroke-width="6"'),
            path(curve(rim, closed=True), fill="none", extra='stroke="#2b2a2e" stroke-width="6.5"'),
            path(curve([(x - 1, y - 1) for x, y in rim], closed=True), fill="none", opacity=0.65,
                 extra='stroke="#a9a7a8" stroke-width="1.4"'),
            line([(s * 158, -18), (s * 190, -26), (s * 212, -24)], "#2b2a2e", 7),
        ]
    parts.append(line([(-32, -8), (-16, -20), (0, -23), (16, -20), (32, -8)], "#2b2a2e", 6))
    parts.append(shape([(-140, -30), (-116, -38), (-84, 26), (-96, 42)], "#ffffff", opacity=0.12, blur=3))
    parts.append(shape([(52, -34), (72, -40), (98, 30), (84, 44)], "#ffffff", opacity=0.1, blur=3))
    return "".join(parts)


def _backdrop_defs(width: int, height: int, light: str, mid: str, dark: str) -> str:
    return gradient("backdrop", [(0, light, 1), (0.55, mid, 1), (1, dark, 1)],
                    vector=f'cx="{width * 0.32}" cy="{height * 0.26}" r="{height * 0.95}"')


def _picture(width: int, height: int, definitions: list[str], parts: list[str]) -> str:
    lamps = "".join(
        ellipse((width * x, height * y), (r, r), "#ffffff", opacity=a, blur=18)
        for x, y, r, a in ((0.1, 0.2, 60, 0.16), (0.9, 0.14, 80, 0.13), (0.84, 0.42, 46, 0.1), (0.16, 0.5, 40, 0.09))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><defs>{"".join(definitions)}</defs>'
        f'<rect width="{width}" height="{height}" fill="url(#backdrop)"/>{lamps}'
        f'<g transform="{PLACE}">{"".join(parts)}</g></svg>'
    )
