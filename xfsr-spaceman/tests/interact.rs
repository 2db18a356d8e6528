//! On slow devices, at a terminal, interrupted, and on what is mounted.

use xfsr_tests::interact;

const PROGRAM: &str = env!("CARGO_BIN_EXE_xfsr-spaceman");

#[test]
fn progress_is_told_and_ctrl_c_ends_it() {
    interact::progress_and_interrupt(PROGRAM, &["-c", "frag"], 130);
}

#[test]
fn it_says_that_a_mounted_filesystem_may_look_inconsistent() {
    interact::reader_warns(PROGRAM, &["-c", "info"]);
}

#[test]
fn it_says_that_a_log_is_dirty_and_that_an_image_is_cut_off() {
    interact::reader_tells_of_images(PROGRAM, &["-c", "info", "-c", "freesp -a 0"]);
}
