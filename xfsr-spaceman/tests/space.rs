//! The answers for an image, for a mount of the same bytes, and those of xfs_spaceman, xfs_io and xfs_db, side by side.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use xfsr_tests::corpus;
use xfsr_tests::oracle::{self, Guest, GuestJob, Mount};

fn spaceman<S: AsRef<OsStr>>(args: &[S]) -> Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_xfsr-spaceman")).args(args).output()?)
}

/// Standard output of a run that succeeds.
fn answer(command: &str, path: &Path, json: bool) -> Result<String> {
    let mut args: Vec<&OsStr> = vec!["-c".as_ref(), command.as_ref(), path.as_os_str()];
    if json {
        args.insert(0, "--json".as_ref());
    }
    let out = spaceman(&args)?;
    ensure!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

/// Files of many sizes, half of them removed again, shared, unwritten and fragmented ones, a directory of several blocks,
/// attributes outside the inode.
fn fill(root: &Path) -> Result<()> {
    for i in 0..200usize {
        std::fs::write(root.join(format!("file{i}")), vec![i as u8; i * 1500])?;
    }
    std::fs::create_dir(root.join("dir"))?;
    for i in 0..1500 {
        std::fs::write(root.join(format!("dir/a-name-of-some-length-{i}")), b"")?;
    }
    for i in (1..200).step_by(2) {
        std::fs::remove_file(root.join(format!("file{i}")))?;
    }
    let big = root.join("big");
    std::fs::write(&big, vec![1; 4 << 20])?;
    oracle::xfs_io(&big, &["fsync", "falloc 4m 4m"])?;
    let clone = root.join("clone");
    std::fs::write(&clone, b"")?;
    oracle::xfs_io(&clone, &[format!("reflink {} 0 0 2m", big.display())])?;
    // Every other block written over unwritten space: an extent btree.
    let many = root.join("many");
    std::fs::write(&many, b"")?;
    let writes: Vec<String> =
        std::iter::once("falloc 0 4m".into()).chain((0..200).map(|i| format!("pwrite -q {} 4k", i * 8192))).collect();
    oracle::xfs_io(&many, &writes)?;
    // Space behind the end of the file, holes inside it.
    let holes = root.join("holes");
    std::fs::write(&holes, b"")?;
    oracle::xfs_io(&holes, &["pwrite -q 64k 4k", "fsync", "pwrite -q 1m 8k", "falloc -k 3m 1m", "falloc -k 9m 64k"])?;
    let value = "x".repeat(3000);
    for i in (0..40).step_by(2) {
        let name = c"user.big";
        rustix::fs::setxattr(root.join(format!("file{i}")), name, value.as_bytes(), rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

fn image(directory: &Path, options: &[&str]) -> Result<PathBuf> {
    let image = directory.join("image");
    std::fs::File::create(&image)?.set_len(640 << 20)?;
    oracle::mkfs_xfs(options, &image)?;
    let mount = Mount::new(&image, "")?;
    fill(mount.path())?;
    mount.unmount()?;
    Ok(image)
}

/// The kernel's answers, in our layout: it names the device by number.
fn xfs_io_fsmap(mount: &Path, command: &str) -> Result<String> {
    let text = xfsr_tests::run("xfs_io", &["-r".as_ref(), "-c".as_ref(), command.as_ref(), mount.as_os_str()])?;
    let lines = text.lines().map(|line| {
        let mut words: Vec<&str> = line.split(' ').collect();
        if let Some(device) = words.get_mut(1) {
            *device = "data";
        }
        words.join(" ") + "\n"
    });
    Ok(lines.collect())
}

fn compare(options: &[&str], rmapbt: bool) -> Result<()> {
    if oracle::require(oracle::MOUNT).and(oracle::require(&["xfs_spaceman"])).is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let image = image(directory.path(), options)?;
    let commands = [
        "freesp",
        "freesp -b",
        "freesp -s",
        "freesp -gs",
        "freesp -dg",
        "freesp -dgs -a 2",
        "freesp -ds",
        "freesp -e 100",
        "freesp -e 0x40 -a 01",
        // A bin would start at the size of an AG.
        "freesp -e 40959",
        "freesp -m 40960",
        "freesp -h 100 -h 10",
        "freesp -h 99999999",
        "freesp -m 3 -a 0 -a 2",
        "freesp -d -a 1",
        "freesp -r",
        "freesp -rg",
        "fsmap -d",
        "fsmap -l",
        "fsmap -r",
        "fsmap -d 0 10",
        "fsmap -d 9 9",
        "fsmap -d 5000",
        "fsmap -d 60 9001",
        "fsmap -d 400001 400002",
        "fsmap -d 300001 700001",
        "fsmap -d 327678 327685",
        "fsmap -d 1310718 1310730",
        "fsmap -d 1m 2m",
        "fsmap -d 1310720",
        "fsmap",
    ];
    let from_image: Vec<String> = commands.iter().map(|c| answer(c, &image, false)).collect::<Result<_>>()?;
    let frag_image: Value = serde_json::from_str(&answer("frag", &image, true)?)?;

    let mount = Mount::new(&image, "ro,norecovery")?;
    for (command, ours) in commands.iter().zip(&from_image) {
        assert_eq!(&answer(command, mount.path(), false)?, ours, "{command}: mount and image");
        let theirs = if command.starts_with("fsmap") {
            xfs_io_fsmap(mount.path(), command)?
        } else {
            xfsr_tests::run("xfs_spaceman", &["-c".as_ref(), command.as_ref(), mount.path().as_os_str()])?
        };
        assert_eq!(&theirs, ours, "{command}: the stock tool and ours");
    }
    let fsmap = from_image.last().context("fsmap is the last command")?;
    assert_eq!(fsmap.contains("inode btree"), rmapbt);
    assert_eq!(fsmap.contains("extent map"), rmapbt);
    assert_eq!(fsmap.contains("unknown"), !rmapbt);
    // Any file of the mount stands for it.
    let file = mount.path().join("big");
    for command in ["fsmap", "frag", "info", "freesp -d"] {
        assert_eq!(answer(command, &file, false)?, answer(command, mount.path(), false)?, "{command} of a file");
    }

    // As a subcommand the range is named.
    let range = ["fsmap", "-d", "--start", "60", "--end", "0x2329"].map(OsStr::new);
    let out = spaceman(&[&range[..], &[mount.path().as_os_str()]].concat())?;
    assert_eq!(String::from_utf8(out.stdout)?, answer("fsmap -d 60 9001", &image, false)?);

    let info = answer("info", mount.path(), false)?;
    let theirs = xfsr_tests::run("xfs_spaceman", &["-c".as_ref(), "info".as_ref(), mount.path().as_os_str()])?;
    assert_eq!(info, theirs);
    let body = |text: &str| text.split_once("isize").map(|(_, rest)| rest.to_owned());
    assert_eq!(body(&info), body(&answer("info", &image, false)?));

    let frag_mount: Value = serde_json::from_str(&answer("frag", mount.path(), true)?)?;
    let frag = |v: &Value, key: &str| v["result"][key].clone();
    for key in ["inodes", "forks", "actual", "ideal"] {
        assert_eq!(frag(&frag_mount, key), frag(&frag_image, key), "frag: {key}");
    }
    assert!(frag(&frag_image, "actual").as_u64() > frag(&frag_image, "ideal").as_u64());
    assert_eq!(answer("frag", mount.path(), false)?, answer("frag", &image, false)?);

    for command in ["freesp -d", "freesp -rds", "info", "frag", "fsmap", "fsmap -d 60 9001"] {
        let of = |path: &Path| -> Result<Value> { Ok(serde_json::from_str(&answer(command, path, true)?)?) };
        let (mut ours, mut theirs) = (of(&image)?, of(mount.path())?);
        for v in [&mut ours, &mut theirs] {
            if let Some(name) = v.pointer_mut("/result/meta_data") {
                *name = Value::Null;
            }
        }
        assert_eq!(ours, theirs, "{command} as JSON");
        assert_eq!(ours["command"], command.split(' ').next().unwrap_or_default());
    }

    // The bytes of a mounted filesystem may change under the reader, who is told so.
    let out = spaceman(&["freesp".as_ref(), image.as_os_str()])?;
    assert!(out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("may be inconsistent"), "{out:?}");
    mount.unmount()?;
    let out = spaceman(&["freesp".as_ref(), image.as_os_str()])?;
    assert!(out.stderr.is_empty(), "{out:?}");

    let db = oracle::xfs_db(&image, &["frag"])?;
    let first = db.lines().next().unwrap_or_default();
    assert_eq!(answer("frag", &image, false)?.lines().next(), Some(first));
    Ok(())
}

#[test]
fn image_mount_and_stock_tools_agree_with_reverse_mappings() -> Result<()> {
    compare(&["-m", "rmapbt=1,reflink=1", "-L", "a label"], true)
}

#[test]
fn image_mount_and_stock_tools_agree_without_reverse_mappings() -> Result<()> {
    compare(&["-m", "rmapbt=0,reflink=1"], false)
}

#[test]
fn image_mount_and_stock_tools_agree_with_small_blocks() -> Result<()> {
    compare(&["-b", "size=1024", "-m", "rmapbt=1,reflink=1", "-i", "nrext64=1", "-d", "agcount=7"], true)
}

#[test]
fn a_realtime_device_is_mapped_as_the_kernel_maps_it() -> Result<()> {
    if corpus::obtain("realtime").is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let devices = corpus::copy("realtime", directory.path());
    let guest = Guest::find().context("the guest kernel")?;
    let program = Path::new(env!("CARGO_BIN_EXE_xfsr-spaceman"));
    let rt = devices.rt.clone().context("a realtime device")?;
    let job = GuestJob {
        disks: vec![&devices.data, &rt],
        programs: vec![program, Path::new("/usr/sbin/xfs_spaceman")],
        ..Default::default()
    };
    let commands = [
        "fsmap -r",
        "fsmap -r 100 3000",
        "fsmap -r 28500",
        "fsmap -d",
        "freesp -rds",
        "freesp -rg",
        "freesp -r -h 10 -h 50000",
        "freesp -r -e 100",
        "frag",
    ];
    let asked = commands.map(|c| format!("xfsr-spaceman -c '{c}' /mnt && echo ==")).join(" && ");
    let stock = commands.map(|c| format!("{{ xfs_spaceman -c '{c}' /mnt || echo; }} && echo ==")).join(" && ");
    let mount = "mount -t xfs -o ro,norecovery,rtdev=/dev/vdb /dev/vda /mnt";
    let verdict = guest.run(&job, &format!("{mount} && {asked} && {stock}"))?;
    ensure!(verdict.clean(), "the guest: {}", verdict.output);
    let answers: Vec<&str> = verdict.output.split("==\n").collect();
    for (n, command) in commands.iter().enumerate() {
        let ours = answer(command, &devices.data, false)?;
        assert_eq!(Some(&ours.as_str()), answers.get(n), "{command}: image and mount");
        // xfs_spaceman has neither of these. Its last bin ends where an AG does: what is larger it lists and sums up, but does not count.
        if !command.starts_with("freesp") {
            continue;
        }
        let theirs = answers.get(commands.len() + n).context("an answer of xfs_spaceman")?;
        let rows = |text: &str| -> Vec<String> {
            text.lines().filter(|l| l.split_whitespace().count() != 5).map(str::to_owned).collect()
        };
        assert_eq!(rows(&ours), rows(theirs), "{command}: the stock tool and ours");
        let mut bins = theirs.lines().filter(|l| l.split_whitespace().count() == 5);
        assert!(bins.all(|l| ours.contains(&l[..30])), "{command}: {theirs}{ours}");
    }
    let free: Value = serde_json::from_str(&answer("freesp -r", &devices.data, true)?)?;
    let sum = |key: &str| free["result"]["bins"].as_array().map(|b| b.iter().filter_map(|b| b[key].as_u64()).sum());
    assert_eq!(sum("blocks"), free["result"]["blocks"].as_u64());
    assert_eq!(sum("extents"), free["result"]["extents"].as_u64());
    let realtime = answer("fsmap -r", &devices.data, false)?;
    assert!(
        realtime.contains("free space") && realtime.contains("unknown") && realtime.lines().count() > 20,
        "{realtime}"
    );
    Ok(())
}

#[test]
fn wrong_usage_exits_with_2() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("x");
    let path = path.to_str().context("a temporary directory has a plain name")?;
    for args in [
        &["-c", "nonsense", path][..],
        &["-c", "freesp -b -e 4", path],
        &["-c", "info", "freesp", path],
        &[path],
        &["-c", "freesp -r -a 0", path],
        &["-c", "freesp -e x", path],
        &["-c", "fsmap 1 2", path],
        &["-c", "fsmap -d -l", path],
        &["-c", "fsmap -d 1x", path],
    ] {
        assert_eq!(spaceman(args)?.status.code(), Some(2), "{args:?}");
    }
    Ok(())
}

#[test]
fn what_is_no_xfs_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("zeroes");
    std::fs::write(&file, vec![0; 1 << 20])?;
    for path in [&file, &PathBuf::from("/proc"), &directory.path().join("nothing")] {
        let out = spaceman(&["info".as_ref(), path.as_os_str()])?;
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(out.stdout.is_empty());
        assert!(String::from_utf8_lossy(&out.stderr).starts_with("xfsr-spaceman: "), "{out:?}");
    }
    Ok(())
}

#[test]
fn v4_is_refused_in_a_sentence() {
    oracle::v4_is_refused(env!("CARGO_BIN_EXE_xfsr-spaceman"), &["-c", "info"], 1);
}
