from deeplift_fast.support.numbers import Numbers, short


def test_numbers_have_signs_marks_and_the_same_decimals():
    numbers = Numbers(0.31)
    assert numbers.signed(0.31) == "▲ +0.310"
    assert numbers.signed(-0.0561) == "▼ −0.056"
    assert numbers.signed(-0.0004) == "0.000"
    assert numbers.level(-2) == "−2.000"
    assert Numbers(12.5).plain(12.5) == "+12.5"
    assert Numbers(2e-7).plain(2e-7) == "+2.00e−07"
    assert Numbers(0).plain(0) == "0.00"
    assert short(-130.0) == "−130"
