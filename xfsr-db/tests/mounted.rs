//! What is mounted may change while it is looked at.

#[test]
fn it_says_that_a_mounted_filesystem_may_look_inconsistent() {
    xfsr_tests::interact::reader_warns(env!("CARGO_BIN_EXE_xfsr-db"), &["-c", "sb 0"]);
}

#[test]
fn it_says_that_a_log_is_dirty_and_that_an_image_is_cut_off() {
    xfsr_tests::interact::reader_tells_of_images(env!("CARGO_BIN_EXE_xfsr-db"), &["-c", "sb 0", "-c", "agf 0"]);
}
