//! A v4 filesystem is refused in a sentence.

use xfsr_tests::oracle;

#[test]
fn v4_is_refused_in_a_sentence() {
    oracle::v4_is_refused(env!("CARGO_BIN_EXE_xfsr-db"), &["-c", "sb 0"], 1);
}
