//! Quota: the files of records, their limits and timers, and the usage that they claim against what a scan of all inodes counts.
//!
//! Usage is compared for the kinds whose "checked" flag is set in the superblock. Without it the next mount with quota counts anew, so
//! what stands there claims nothing.

mod usage;

pub(super) use usage::{Batch, Usage};

use super::Findings;
use super::ag::AgState;
use super::inodes::Table;
use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Corruption, ForkKind, Result, Rule, Severity};
use crate::format::Context;
use crate::format::features::QuotaFlags;
use crate::format::inode::Format;
use crate::format::quota::{DiskDquot, DquotSlot, SLOT_SIZE, slots_per_block, verify_slot};
use crate::inode::Inode;
use crate::quota::Kind;
use crate::units::{AgNumber, FileBlock, FsBlock, Ino, to_usize};
use crate::volume::Volume;
use std::collections::HashMap;
use usage::Used;
use zerocopy::FromBytes;

/// The structure's name in findings: that of the scrub type.
fn structure(kind: Kind) -> &'static str {
    match kind {
        Kind::User => "usrquota",
        Kind::Group => "grpquota",
        Kind::Project => "prjquota",
    }
}

/// Checks the flags and all quota files.
///
/// # Errors
/// Only when the caller's control says stop.
pub(super) fn check(
    volume: &Volume,
    table: &Table<'_>,
    ags: &[AgState],
    usage: &Usage,
    found: &Findings<'_>,
    control: &Control<'_>,
) -> Result<()> {
    let qflags = QuotaFlags::from_bits_retain(volume.superblock.qflags.get());
    // In v4 group and project quota shared two of the flags.
    let old = QuotaFlags::OQUOTA_ENFD | QuotaFlags::OQUOTA_CHKD;
    if !(QuotaFlags::all() - old).contains(qflags) {
        let c = Corruption::new("sb", "qflags", Rule::Flags).in_ag(AgNumber(0), None);
        found.add(c.found(format_args!("{:#x}", qflags.bits())).expected("flags of v5 only"));
    }
    // Where an inode may have been overlooked, or its owner cannot be trusted, nothing can be said of sums.
    let complete =
        ags.iter().all(|a| a.agi.is_some() && a.inobt_complete) && !table.used().any(|(_, slot)| table.is_broken(slot));
    let mut seen: Vec<Ino> = Vec::new();
    for kind in Kind::ALL {
        control.check()?;
        let ino = match kind.file(volume, OnDamage::Keep) {
            Ok(ino) => ino,
            Err(e) => {
                found.skip("quota", format_args!("the file of {} quota cannot be found: {e}", kind.name()));
                continue;
            }
        };
        let Some(ino) = ino else {
            if qflags.contains(kind.counted()) {
                let c = Corruption::new("sb", "qflags", Rule::Mismatch).in_ag(AgNumber(0), None);
                let c = c.severity(Severity::CrossReference).found(format_args!("{} quota is counted", kind.name()));
                found.add(c.expected("a quota file"));
            }
            continue;
        };
        let file = File { volume, found, kind, ino };
        if seen.contains(&ino) {
            found.add(file.bad("inode", Rule::DoublyOwned).found("a quota file of another kind too"));
            continue;
        }
        seen.push(ino);
        let accounted = qflags.contains(kind.accounted());
        let compare = accounted && qflags.contains(kind.counted()) && complete && usage.wanted;
        if accounted && !compare {
            let why = match (usage.wanted, complete) {
                (false, _) => "it was not asked for",
                (_, true) => "not marked as counted",
                _ => "not all inodes could be read",
            };
            let why = format_args!("{} quota: {why}", kind.name());
            if complete || !usage.wanted {
                found.not_applicable("quotacheck", why)
            } else {
                found.skip("quotacheck", why)
            }
        }
        file.check(compare.then(|| usage.take(kind)), control)?;
    }
    Ok(())
}

struct File<'a> {
    volume: &'a Volume,
    found: &'a Findings<'a>,
    kind: Kind,
    ino: Ino,
}

/// Most bytes that are read at once.
const PIECE: u64 = 1 << 20;

impl File<'_> {
    fn bad(&self, field: &'static str, rule: Rule) -> Box<Corruption> {
        Corruption::new(structure(self.kind), field, rule).in_inode(self.ino)
    }

    /// Reads the inode, and says what makes it no quota file. None where it cannot be used.
    fn inode(&self) -> Option<Inode> {
        let inode = match Inode::read(self.volume, self.ino, OnDamage::Keep) {
            Ok(i) => i,
            Err(e) => {
                self.found.add_error(e, || self.bad("inode", Rule::Unreadable));
                return None;
            }
        };
        let core = &inode.core;
        if !core.is_reg() || core.is_realtime() {
            let c = self.bad("inode", Rule::Mismatch).found(format_args!("mode {:o}", core.mode));
            self.found.add(c.expected("a regular file on the data device"));
            return None;
        }
        let wrong_type = self.volume.geometry.features.metadir() && core.metatype() != Some(self.kind.metatype());
        if wrong_type {
            let c = self.bad("metatype", Rule::Mismatch).found(core.metatype);
            self.found.add(c.expected(self.kind.metatype() as u16));
        }
        if core.size.get() != 0 {
            self.found.add(self.bad("size", Rule::Range).found(core.size).expected("0, whatever the file holds"));
        }
        if !matches!(core.format(ForkKind::Data), Some(Format::Extents | Format::Btree)) {
            self.found.add(self.bad("format", Rule::Flags).found(core.format).expected("extents or btree"));
            return None;
        }
        Some(inode)
    }

    fn check(&self, mut usage: Option<HashMap<u32, Used>>, control: &Control<'_>) -> Result<()> {
        let Some(inode) = self.inode() else { return Ok(()) };
        let extents = match inode.extents(self.volume, ForkKind::Data) {
            Ok(e) => e,
            Err(e) => {
                self.found.add_error(e, || self.bad("map", Rule::Unreadable));
                return Ok(());
            }
        };
        let g = &self.volume.geometry;
        let size = g.block_size as usize;
        let per = slots_per_block(size) as u64;
        let last = u64::from(u32::MAX) / per;
        let mut bytes = Vec::new();
        let mut next = 0;
        for e in extents {
            let there = e.offset >= next && e.offset.checked_add(e.count).is_some_and(|end| end <= last + 1);
            if e.unwritten || !there {
                let c = self.bad("bmap", Rule::Range).in_fork(ForkKind::Data, Some(FileBlock(e.offset)));
                let state = if e.unwritten { "unwritten" } else { "written" };
                let c = c.found(format_args!("{} {state} blocks at file block {}", e.count, e.offset));
                self.found.add(c.expected(format_args!("written blocks, in order, up to file block {last}")));
                continue;
            }
            next = e.offset + e.count;
            let mut done = 0;
            while done < e.count {
                control.check()?;
                let blocks = (e.count - done).min(PIECE / size as u64).max(1);
                bytes.resize(to_usize(blocks).saturating_mul(size), 0);
                let read = match g.fsblock_to_daddr(FsBlock(e.start + done)) {
                    Some(d) => self.volume.data_target().read_at(&mut bytes, d.bytes()),
                    // The pass over inodes has told of a place that does not exist.
                    None => break,
                };
                if let Err(err) = read {
                    self.found.add_error(err, || {
                        self.bad("block", Rule::Unreadable).in_fork(ForkKind::Data, Some(FileBlock(e.offset + done)))
                    });
                    usage = None;
                } else {
                    for (i, block) in (0..).zip(bytes.chunks_exact(size)) {
                        self.block(e.offset + done + i, FsBlock(e.start + done + i), block, per, &mut usage);
                    }
                }
                done += blocks;
            }
        }
        let mut rest: Vec<(u32, Used)> = usage.unwrap_or_default().into_iter().collect();
        rest.sort_unstable_by_key(|(id, _)| *id);
        for (id, used) in rest.iter().filter(|(_, u)| *u != Used::default()) {
            let c = self.bad("id", Rule::Missing).severity(Severity::CrossReference);
            let c = c.in_fork(ForkKind::Data, Some(FileBlock(u64::from(*id) / per)));
            self.found.add(c.found(format_args!("no record of id {id}")).expected(format_args!(
                "one that says {} blocks, {} realtime blocks, {} inodes",
                used.blocks, used.realtime, used.inodes
            )));
        }
        Ok(())
    }

    fn block(&self, at: u64, fsb: FsBlock, block: &[u8], per: u64, usage: &mut Option<HashMap<u32, Used>>) {
        let g = &self.volume.geometry;
        let Some(daddr) = g.fsblock_to_daddr(fsb) else { return };
        let context = Context::new(g, daddr);
        let place = |c: Box<Corruption>| c.in_inode(self.ino).in_fork(ForkKind::Data, Some(FileBlock(at)));
        for (slot, bytes) in (0..per).zip(block.chunks_exact(SLOT_SIZE)) {
            // Above the highest id the last block has room left.
            let Ok(id) = u32::try_from(at * per + slot) else { break };
            let used = usage.as_mut().map(|u| u.remove(&id).unwrap_or_default());
            if let Err(c) = verify_slot(bytes, Some(id), Some(self.kind.record()), &context) {
                self.found.add(place(c));
                continue;
            }
            let Ok((record, _)) = DquotSlot::ref_from_prefix(bytes) else { continue };
            let d = &record.diskdq;
            let mut tell = |c: Box<Corruption>| self.found.add(place(c));
            if let Some(used) = used {
                compare(self.kind, id, d, used, &mut tell);
            }
            if id != 0 {
                limits(self.kind, id, d, &mut tell);
            }
        }
    }
}

fn compare(kind: Kind, id: u32, d: &DiskDquot, used: Used, tell: &mut dyn FnMut(Box<Corruption>)) {
    for (field, stored, counted) in [
        ("bcount", d.bcount.get(), used.blocks),
        ("rtbcount", d.rtbcount.get(), used.realtime),
        ("icount", d.icount.get(), used.inodes),
    ] {
        if stored != counted {
            let c = Corruption::new(structure(kind), field, Rule::Count).severity(Severity::CrossReference);
            tell(c.found(format_args!("{stored} for id {id}")).expected(counted));
        }
    }
}

/// Limits against each other and against usage, and timers that run without need.
fn limits(kind: Kind, id: u32, d: &DiskDquot, tell: &mut dyn FnMut(Box<Corruption>)) {
    let rows = [
        (["blk_softlimit", "blk_hardlimit", "btimer"], d.blk_softlimit, d.blk_hardlimit, d.bcount, d.btimer),
        (["ino_softlimit", "ino_hardlimit", "itimer"], d.ino_softlimit, d.ino_hardlimit, d.icount, d.itimer),
        (["rtb_softlimit", "rtb_hardlimit", "rtbtimer"], d.rtb_softlimit, d.rtb_hardlimit, d.rtbcount, d.rtbtimer),
    ];
    for ([soft_name, hard_name, timer_name], soft, hard, count, timer) in rows {
        let (soft, hard, count) = (soft.get(), hard.get(), count.get());
        let bad = |field, rule| Corruption::new(structure(kind), field, rule);
        if hard != 0 && soft > hard {
            let c = bad(soft_name, Rule::Range).found(format_args!("{soft} for id {id}"));
            tell(c.expected(format_args!("at most the hard limit {hard}")));
        }
        // An administrator may lower a limit below what is used already.
        let over_hard = hard != 0 && count > hard;
        if over_hard {
            let c = bad(hard_name, Rule::Range).severity(Severity::Warning);
            tell(c.found(format_args!("id {id} uses {count}")).expected(format_args!("at most {hard}")));
        }
        // The other way round, over a limit without a timer, was checked with the record itself. The next change of this
        // user's usage takes the timer back.
        if timer.get() != 0 && !(over_hard || soft != 0 && count > soft) {
            let c = bad(timer_name, Rule::Extra).severity(Severity::Warning);
            tell(c.found(format_args!("a grace period for id {id}")).expected("none below the limits"));
        }
    }
}
