//! Extended attributes in every form.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::XattrFlags;

use super::Filler;

impl Filler {
    pub(super) fn attributes(&mut self) -> Result<()> {
        let dir = self.dir("attrs")?;
        let block = self.shape.block as usize;
        let set = |path: &Path, name: &str, value: &[u8]| rustix::fs::lsetxattr(path, name, value, XattrFlags::empty());
        let plain = |name: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            fs::write(&path, b"has attributes")?;
            Ok(path)
        };
        let short = plain("short")?;
        for (name, value) in
            [("user.a", &b"1"[..]), ("trusted.t", b"two"), ("security.s", b""), ("user.bin", &[0, 255, 10])]
        {
            set(&short, name, value)?;
        }
        // A leaf holds a block of names and values; more of them make a node; values near a block's size live outside.
        let each = 100.min(block / 24);
        let leaf = plain("leaf")?;
        for i in 0..block / 2 / (each + 32) {
            set(&leaf, &format!("user.leaf-{i:04}"), &self.bytes(each as u64))?;
        }
        let counted = (3 * block / (each + 32)).min(2500);
        let value = (3 * block / counted).max(each);
        let node = plain("node")?;
        for i in 0..counted {
            set(&node, &format!("user.node-{i:04}"), &self.bytes(value as u64))?;
        }
        for i in (0..counted).filter(|i| i % 3 == 1) {
            rustix::fs::lremovexattr(&node, format!("user.node-{i:04}"))?;
        }
        // Small blocks take few values each, so that the index gets a second level of nodes.
        if block == 1024 {
            let deep = plain("deep-index")?;
            for i in 0..700 {
                set(&deep, &format!("user.deep-{i:04}"), &self.bytes(240))?;
            }
        }
        let remote = plain("remote")?;
        let mut lengths = vec![block - 100, block, block + 1, 3 * block + 7, 65536, 12345];
        lengths.retain(|l| (1..=65536).contains(l));
        for (i, length) in lengths.iter().enumerate() {
            let prefix = ["user", "trusted", "security"][i % 3];
            set(&remote, &format!("{prefix}.remote-{i}"), &self.bytes(*length as u64))?;
        }
        set(&remote, "user.removed", &self.bytes(5000))?;
        rustix::fs::lremovexattr(&remote, "user.removed")?;
        // Two files whose remote values are stored in turn: neither gets long extents.
        let (first, second) = (plain("btree")?, plain("btree-holes")?);
        let (count, length) = (70, (2 * block).clamp(3000, 60000) as u64);
        for i in 0..count {
            set(&first, &format!("user.value-{i:03}"), &self.bytes(length))?;
            set(&second, &format!("trusted.value-{i:03}"), &self.bytes(length))?;
        }
        for i in 10..20 {
            rustix::fs::lremovexattr(&second, format!("trusted.value-{i:03}"))?;
        }
        let long = plain("long-names")?;
        for i in 0..20 {
            set(&long, &format!("user.{i:02}{}", "n".repeat(248)), b"value")?;
        }
        let emptied = plain("emptied")?;
        for i in 0..30 {
            set(&emptied, &format!("user.gone-{i}"), &self.bytes(80))?;
        }
        for i in 0..30 {
            rustix::fs::lremovexattr(&emptied, format!("user.gone-{i}"))?;
        }
        let link = dir.join("link");
        symlink("short", &link)?;
        set(&link, "trusted.on-a-link", b"yes")?;
        set(&dir, "user.on-a-directory", &self.bytes(60))?;
        // Access control lists, in the kernel's own form: version 2, then tag, permissions and id of each entry.
        let acl = |ids: &[u32]| {
            let mut v = 2_u32.to_le_bytes().to_vec();
            let mut add = |tag: u16, id: u32| {
                v.extend(tag.to_le_bytes());
                v.extend(6_u16.to_le_bytes());
                v.extend(id.to_le_bytes());
            };
            add(1, u32::MAX);
            ids.iter().for_each(|id| add(2, *id));
            for tag in [4, 0x10, 0x20] {
                add(tag, u32::MAX);
            }
            v
        };
        let with_acl = plain("acl")?;
        set(&with_acl, "system.posix_acl_access", &acl(&[1000, 1001, 70000]))?;
        let acl_dir = dir.join("acl-dir");
        fs::create_dir(&acl_dir)?;
        set(&acl_dir, "system.posix_acl_default", &acl(&(2000..2020).collect::<Vec<_>>()))?;
        fs::write(acl_dir.join("inherits"), b"")?;
        Ok(())
    }
}
