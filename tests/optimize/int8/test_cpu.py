import pytest

from optimize.int8.cpu import has_dot_product


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        pytest.param("model name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512_vnni\n", True, id="AVX512-VNNI"),
        pytest.param("flags\t\t: avx2 avx_vnni\n", True, id="AVX-VNNI"),
        pytest.param("flags\t\t: fpu avx2 avx512f\n", False, id="AVX2 alone"),
        pytest.param("model name\t: avx512_vnni\nflags\t: fpu\n", False, id="a word elsewhere"),
        pytest.param("Features\t: asimd asimddp\n", False, id="no x86"),
        pytest.param("", False, id="nothing known"),
    ],
)
def test_the_kernels_list_of_features_tells_of_vnni(cpuinfo: str, expected: bool) -> None:
    assert has_dot_product(cpuinfo) is expected
