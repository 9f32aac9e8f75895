"""Ravi, the man of the podcast example: short hair, full beard, glasses, a blue jacket; used by draw.

The one invariant: everything is drawn in face coordinates (see features).
"""

# fmt: off
from features import MOUTH_Y, EyeStyle, LipStyle, Skin, brow, eye, face_shading, lips, nose
from paint import clip, curve, ellipse, gradient, group, hair, line, mirrored, path, shape
from setting import backdrop, picture


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
    defs = [clip("head", head), eye_l[0], eye_r[0], mouth_[0],
            backdrop(width, height, "#cfe3e2", "#86aab3", "#3d5d70"),
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
    return picture(width, height, defs, [*body, *face, _ravi_hair(dark), _glasses()])


def _ear(side: int, skin: Skin) -> str:
    def at(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(side * x, y) for x, y in points]

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
        line([(-84, 640), (-92, 780)], "#14284a", 3, opacity=0.7),
        line([(84, 640), (92, 780)], "#14284a", 3, opacity=0.7),
    ])


def _ravi_beard(dark: tuple[str, ...]) -> str:
    """A full, trimmed beard: a soft mass under many short hairs that follow the jaw."""
    mass = [(-206, 20), (-188, 70), (-150, 112), (-116, 142), (-98, 172), (-64, 200), (0, 210), (64, 200), (98, 172),
            (116, 142), (150, 112), (188, 70), (206, 20), (208, 110), (190, 190), (150, 250), (96, 292), (0, 312),
            (-96, 292), (-150, 250), (-190, 190), (-208, 110)]
    parts = [shape([(x * 0.95, y - 4 * (y > MOUTH_Y)) for x, y in mass], dark[1], opacity=0.85, blur=6)]
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
        ([(-170, -170), (-190, -240), (-130, -310), (-20, -330)],
         [(-110, -200), (-120, -270), (-40, -320), (60, -330)], 230),
        ([(-120, -200), (-110, -280), (-10, -340), (120, -320)],
         [(40, -206), (70, -270), (140, -300), (190, -250)], 300),
        ([(30, -206), (80, -260), (160, -290), (210, -230)],
         [(150, -176), (180, -200), (206, -200), (220, -150)], 170),
    ]
    for k, (first, second, count) in enumerate(sweeps):
        parts.append(hair(first, second, dark, count=count, width=4, seed=500 + k, jitter=7))
    for s in (-1, 1):
        parts.append(hair([(s * 200, -190), (s * 204, -120), (s * 200, 50)],
                          [(s * 226, -200), (s * 224, -120), (s * 210, 40)],
                          dark, count=120, width=2.6, seed=520 + s, jitter=4))
    parts.append(hair([(-110, -250), (-60, -310), (30, -336), (110, -318)],
                      [(-60, -230), (0, -290), (70, -318), (140, -296)],
                      ("#7a5f49", "#5f4735", "#947660"), count=70, width=2.6, seed=540, jitter=8, opacity=(0.15, 0.5)))
    return "".join(parts)


def _glasses() -> str:
    """Thin round-square metal frames with a faint reflection."""
    parts = []
    for s in (-1, 1):
        rim = [(s * x, y) for x, y in [(26, -34), (58, -48), (112, -50), (154, -38), (163, 4), (150, 50), (108, 66),
                                       (60, 62),
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
