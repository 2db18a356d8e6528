//! Remote values: blocks of the attribute fork, each with a header that says which part of the value it holds.
//!
//! They are written before the attribute is made visible and are not logged; so their LSN is no LSN but all ones. Kernels
//! before 4.3 wrote a real one, which is as good.

use super::MAX_VALUE;
use crate::error::{Corruption, Rule, Verdict};
use crate::format::{BlockType, Context, part};
use crate::units::Lsn;

/// `XARM`.
pub const REMOTE_MAGIC: u32 = 0x5841_524d;

fn verify(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "attrremote";
    let h = part::verify(N, (REMOTE_MAGIC, MAX_VALUE), bytes, at)?;
    let room = bytes.len() - size_of::<part::PartHeader>();
    if !(h.offset.get() as usize).is_multiple_of(room.max(1)) {
        let c = Corruption::new(N, "offset", Rule::Range).at_daddr(at.daddr);
        return Err(c.found(h.offset).expected("whole blocks before it"));
    }
    Ok(())
}

/// One filesystem block of a remote value. The cache reads and seals such values block by block: each has its own header.
pub static ATTR_REMOTE: BlockType =
    BlockType { name: "attrremote", log_type: 17, lsn: |_| None, verify, seal: |b, _| part::seal(b, Lsn(u64::MAX)) };
