//! Links, devices, odd names, owners, modes and times.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use anyhow::Result;
use rustix::fs::{AtFlags, CWD, FileType, Timespec, Timestamps};

use super::{Filler, node};

impl Filler {
    pub(super) fn links(&mut self) -> Result<()> {
        let dir = self.dir("links")?;
        let popular = dir.join("popular");
        fs::write(&popular, b"everybody's")?;
        for i in 0..3000 {
            fs::hard_link(&popular, dir.join(format!("l{i}")))?;
        }
        for length in [1, 10, 100, 335, 336, 337, 500, 800, 1000, 1023] {
            symlink("s".repeat(length), dir.join(format!("symlink-{length}")))?;
        }
        symlink(OsStr::from_bytes(b"\xff\xfe not utf-8"), dir.join("symlink-bytes"))?;
        symlink("../links/popular", dir.join("symlink-good"))?;
        node(&dir.join("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3))?;
        node(&dir.join("wide"), FileType::BlockDevice, rustix::fs::makedev(259, 70000))?;
        node(&dir.join("fifo"), FileType::Fifo, 0)?;
        node(&dir.join("socket"), FileType::Socket, 0)?;
        Ok(())
    }

    pub(super) fn odd(&mut self) -> Result<()> {
        let dir = self.dir("odd")?;
        let long = [b'x'; 255];
        let names: [&[u8]; 11] = [
            &long,
            b"new\nline",
            b"\xff\xfe\x80bytes",
            b" ",
            b"-rf",
            b"\x1b[2Jescape",
            "na\u{ef}ve".as_bytes(),
            "nai\u{308}ve".as_bytes(),
            "\u{202e}txt.exe".as_bytes(),
            b"back\\slash",
            b"...",
        ];
        for name in names {
            fs::write(dir.join(OsStr::from_bytes(name)), name)?;
        }
        for (i, mode) in [0, 0o7777, 0o4755, 0o2711, 0o1666, 0o444].into_iter().enumerate() {
            let path = dir.join(format!("mode-{i}"));
            fs::write(&path, b"")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        for (i, (uid, gid)) in
            [(1, 2), (65534, 65535), (70_000, 4_000_000_000), (u32::MAX - 1, 0)].into_iter().enumerate()
        {
            let path = dir.join(format!("owner-{i}"));
            fs::write(&path, b"")?;
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
        }
        // The first and the last second of both time formats, and around 1970. What does not fit is clamped by the kernel.
        let times = [i64::from(i32::MIN), -1, 0, 1, i64::from(i32::MAX), 1 << 31, 4_000_000_000, 16_299_260_424];
        for (i, seconds) in times.into_iter().enumerate() {
            let path = dir.join(format!("time-{i}"));
            fs::write(&path, b"")?;
            let stamp = |n| Timespec { tv_sec: seconds, tv_nsec: n };
            let times = Timestamps { last_access: stamp(1), last_modification: stamp(999_999_999) };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let flags = dir.join("flags");
        fs::create_dir(&flags)?;
        for (name, commands) in [
            ("project", &["chproj 4242"][..]),
            ("large-project", &["chproj 4294967294"]),
            ("extsize", &["extsize 64k"]),
            ("nodump-noatime", &["chattr +d", "chattr +A"]),
            ("append", &["chattr +a"]),
            ("immutable", &["chattr +i"]),
        ] {
            let path = flags.join(name);
            fs::write(&path, b"")?;
            crate::oracle::xfs_io(&path, commands)?;
        }
        let inherits = flags.join("inherits");
        fs::create_dir(&inherits)?;
        crate::oracle::xfs_io(&inherits, &["chproj 77", "chattr +P", "extsize 128k"])?;
        fs::write(inherits.join("child"), self.bytes(1000))?;
        Ok(())
    }
}
