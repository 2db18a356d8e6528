//! Realtime groups of an image. No kernel that runs these tests mounts them: the images are made by the library's own mkfs, so what follows
//! shows that mkfs and the answers agree.

use anyhow::{Context as _, Result, ensure};
use libxfsr::mkfs::{self, Options, write};
use libxfsr::target::{Access, FileTarget};
use libxfsr::volume::{Devices, Volume};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

const DATA: u64 = 400 << 20;
const RT: u64 = 300 << 20;

/// An image with four realtime groups on a device of its own.
fn image(directory: &Path, rmapbt: bool, extsize: u64) -> Result<PathBuf> {
    let (data, rt) = (directory.join("data"), directory.join("rt"));
    for (path, size) in [(&data, DATA), (&rt, RT)] {
        File::create_new(path)?.set_len(size)?;
    }
    let mut options = Options::default();
    options.metadata.metadir = Some(true);
    options.metadata.rmapbt = Some(rmapbt);
    options.metadata.reflink = Some(rmapbt);
    options.realtime.extsize = Some(extsize);
    let devices = mkfs::Devices { rt: Some(mkfs::Topology::plain(RT)), ..mkfs::Devices::file(DATA) };
    let plan = mkfs::plan(&options, &devices)?;
    let (data_target, rt_target) = (FileTarget::open(&data, Access::Write)?, FileTarget::open(&rt, Access::Write)?);
    let targets = write::Targets { data: &data_target, log: None, rt: Some(&rt_target) };
    write::write(&plan, &targets, &write::WriteOptions::default(), &libxfsr::control::Control::none())?;
    Ok(data)
}

fn answer(command: &str, path: &Path) -> Result<Value> {
    let out = Command::new(env!("CARGO_BIN_EXE_xfsr-spaceman")).args(["--json", "-c", command]).arg(path).output()?;
    ensure!(out.status.success() && out.stderr.is_empty(), "{command}: {out:?}");
    Ok(serde_json::from_slice(&out.stdout)?)
}

#[test]
fn realtime_groups_are_mapped_and_their_free_space_is_counted() -> Result<()> {
    for (rmapbt, extsize) in [(true, 4096), (false, 16384)] {
        let directory = tempfile::tempdir()?;
        let data = image(directory.path(), rmapbt, extsize)?;
        let volume = Volume::open(&Devices { data: data.clone(), log: None, realtime: None })?;
        assert_eq!(volume.geometry.rt_groups, 4);
        let counted = volume.superblock.frextents.get() * extsize / 4096;

        let free = answer("freesp -rds", &data)?;
        let free = &free["result"];
        assert_eq!(free["blocks"].as_u64(), Some(counted));
        // Each group is told by itself; the first begins with the realtime superblock.
        let list = free["list"].as_array().context("a list")?;
        let group = u64::from(volume.geometry.rt_group_extents) * extsize / 4096;
        let starts: Vec<u64> = list.iter().filter_map(|e| e["block"].as_u64()).collect();
        assert_eq!(starts, [extsize / 4096, group, 2 * group, 3 * group]);

        let map = answer("fsmap -r", &data)?;
        let map = map["result"].as_array().context("mappings")?.clone();
        let number = |m: &Value, key: &str| m[key].as_u64().unwrap_or(u64::MAX);
        let mut next = 0;
        for m in &map {
            assert_eq!((number(m, "physical"), m["device"].as_str()), (next, Some("realtime")), "{m}");
            next += number(m, "length");
        }
        assert_eq!(next, RT);
        let first = if rmapbt { "fs" } else { "unknown" };
        assert_eq!((map[0]["owner"].as_str(), number(&map[0], "length")), (Some(first), extsize));
        let free = map.iter().filter(|m| m["owner"] == "free").map(|m| number(m, "length")).sum::<u64>();
        assert_eq!(free, counted * 4096);

        // The sector behind the superblock, and the last ones.
        let map = answer(&format!("fsmap -r {} 700000", extsize / 512), &data)?;
        let map = map["result"].as_array().context("mappings")?.clone();
        assert!(map.iter().all(|m| m["owner"] == "free"), "{map:?}");
        assert_eq!(number(&map[0], "physical"), extsize);
    }
    Ok(())
}

#[test]
fn damaged_groups_are_told() -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    for (file, command) in [("rtgroups/1.bitmap", "freesp -r"), ("rtgroups/2.rmap", "fsmap -r")] {
        let directory = tempfile::tempdir()?;
        let data = image(directory.path(), true, 4096)?;
        let volume = Volume::open(&Devices { data: data.clone(), log: None, realtime: None })?;
        let root = libxfsr::units::Ino(volume.superblock.metadirino.get());
        let ino = libxfsr::dir::resolve(&volume, root, file.as_bytes())?;
        let at = volume.geometry.ino_to_offset(ino).context("its place")?;
        answer(command, &data)?;
        let image = File::options().write(true).open(&data)?;
        image.write_all_at(&[0xff; 4], at + 100)?;
        let out = Command::new(env!("CARGO_BIN_EXE_xfsr-spaceman")).args(["-c", command]).arg(&data).output()?;
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(&format!("inode {ino}")), "{ino}: {out:?}");
    }
    Ok(())
}
