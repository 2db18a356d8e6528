//! Dumps that xfs_metadump wrote: restored by the library they are what xfs_mdrestore makes of them.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use libxfsr::dump::{Header, restore};
use libxfsr::format::metadump::InfoV1;
use libxfsr::target::{Access, FileTarget};
use xfsr_tests::{corpus, oracle, run};

fn equal(a: &Path, b: &Path) -> bool {
    xfsr_tests::output("cmp", &[OsStr::new("-s"), a.as_os_str(), b.as_os_str()]).unwrap().status.success()
}

#[test]
fn version_1_restores_as_with_xfs_mdrestore() {
    if oracle::require(&["xfs_metadump", "xfs_mdrestore", "cmp"]).is_none() {
        return;
    }
    for (name, flags) in [("default", "-o"), ("rmap-1k", "-ao"), ("b64k", "-o"), ("dirty", "-o"), ("plain", "-w")] {
        let Some(devices) = corpus::obtain(name) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let [dump, theirs, ours] = ["dump", "theirs", "ours"].map(|n| dir.path().join(n));
        run("xfs_metadump", &[OsStr::new(flags), devices.data.as_os_str(), dump.as_os_str()]).unwrap();
        run("xfs_mdrestore", &[&dump, &theirs]).unwrap();
        File::create(&ours).unwrap().set_len(std::fs::metadata(&theirs).unwrap().len()).unwrap();
        let target = FileTarget::open(&ours, Access::Write).unwrap();
        let mut input = std::io::BufReader::new(File::open(&dump).unwrap());
        let dumped = restore(&mut input, &target, None, None, &libxfsr::control::Control::none()).unwrap();
        drop(target);
        assert!(equal(&ours, &theirs), "{name}: restored otherwise than by xfs_mdrestore");
        let Header::V1(info) = dumped.header else { panic!("{name}: {dumped:?}") };
        assert_eq!(info.contains(InfoV1::DIRTY_LOG), name == "dirty", "{name}: {dumped:?}");
        assert_eq!(info.contains(InfoV1::OBFUSCATED), !flags.contains('o'), "{name}: {dumped:?}");
        assert_eq!(info.contains(InfoV1::FULL_BLOCKS), flags.contains('a'), "{name}: {dumped:?}");
        // Indices and blocks are all that there is.
        assert_eq!((dumped.parts + dumped.blocks) * 512, std::fs::metadata(&dump).unwrap().len(), "{name}: {dumped:?}");
    }
}
