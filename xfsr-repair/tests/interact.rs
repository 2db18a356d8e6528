//! On slow devices, at a terminal, interrupted, and on what is mounted.

use xfsr_tests::interact;

const PROGRAM: &str = env!("CARGO_BIN_EXE_xfsr-repair");

#[test]
fn progress_is_told_and_ctrl_c_ends_it() {
    interact::progress_and_interrupt(PROGRAM, &["-n"], 130);
}

#[test]
fn it_says_that_a_mounted_filesystem_may_look_inconsistent() {
    interact::reader_warns(PROGRAM, &["-n"]);
}
