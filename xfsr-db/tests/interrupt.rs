//! Long commands as a person meets them: they show how far they are, and end when Ctrl-C says so.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use xfsr_tests::interact::{self, SLOW};
use xfsr_tests::{corpus, oracle};

const PROGRAM: &str = env!("CARGO_BIN_EXE_xfsr-db");
/// What each read takes: a look at the superblock and the log is then over in a second, the commands are not.
const MICROS: u32 = 20_000;

#[test]
fn long_commands_show_progress_and_stop() {
    let (Some(_), Some(devices)) = (oracle::require(SLOW), corpus::obtain("default")) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let rdump = format!("rdump / {}", directory.path().display());
    for command in ["blockget", "frag", "ncheck", &rdump] {
        let words: [OsString; 3] = ["-c".into(), command.into(), devices.data.clone().into()];
        let ended =
            interact::interrupt(Path::new(PROGRAM), &words, 4 * MICROS, Duration::from_millis(2500)).expect("it runs");
        assert_eq!(ended.code, Some(130), "{command}: {ended:?}");
        assert!(ended.took < Duration::from_secs(20), "{command}: Ctrl-C took {:?}", ended.took);
        assert!(ended.err.contains("stopped before the end"), "{command}: {}", ended.err);
    }
    let words: [OsString; 3] = ["-c".into(), "blockget".into(), devices.data.clone().into()];
    let shown = interact::at_terminal(Path::new(PROGRAM), &words, MICROS / 4).expect("it runs");
    assert!(shown.contains('\u{1b}'), "no progress at a terminal: {shown:?}");
}
