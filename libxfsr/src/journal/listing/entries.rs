//! What a listing is made of.

use super::detail::Detail;
use crate::error::Corruption;
use crate::units::{Daddr, Lsn};
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// One line of a listing.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Entry {
    /// The log itself; comes first.
    Log(LogEntry),
    /// A record.
    Record(RecordEntry),
    /// An operation of the record before.
    Operation(OperationEntry),
    /// Blocks in which no record is.
    Gap(GapEntry),
    /// A transaction that an operation before commits.
    Transaction(TransactionEntry),
    /// An item of the transaction before.
    Item(ItemEntry),
    /// What is wrong with what comes before; a warning where recovery does not look at it.
    Finding {
        /// What.
        finding: Corruption,
    },
    /// An intent without a done item, which recovery has to finish; these come last, and only where all was listed that recovery looks at.
    Pending(ItemEntry),
}

/// Writes cycle and block.
pub(super) fn lsn<S: Serializer>(lsn: &Lsn, s: S) -> Result<S::Ok, S::Error> {
    let mut parts = s.serialize_struct("lsn", 2)?;
    parts.serialize_field("cycle", &lsn.cycle())?;
    parts.serialize_field("block", &lsn.block())?;
    parts.end()
}

fn maybe_lsn<S: Serializer>(value: &Option<Lsn>, s: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(v) => lsn(v, s),
        None => s.serialize_none(),
    }
}

/// What recovery would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing.
    Clean,
    /// Replay it.
    Dirty,
    /// Fail: no record before the head can be used.
    Damaged,
}

/// Where the log lies and where it begins and ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LogEntry {
    /// Whether it lies on the data device.
    pub internal: bool,
    /// Its first block on its device.
    pub daddr: Daddr,
    /// Its length in blocks of 512 bytes.
    pub blocks: u64,
    /// What recovery would do.
    pub state: State,
    /// Where recovery begins; none where that cannot be told.
    #[serde(serialize_with = "maybe_lsn")]
    pub tail: Option<Lsn>,
    /// Behind the last record that recovery uses.
    #[serde(serialize_with = "maybe_lsn")]
    pub head: Option<Lsn>,
    /// Behind the last block that was written: what lies between is torn.
    #[serde(serialize_with = "maybe_lsn")]
    pub written: Option<Lsn>,
}

/// What a record's checksum is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CrcState {
    /// Right.
    Right,
    /// Wrong.
    Wrong,
    /// mkfs and xfs_repair write none.
    Absent,
    /// The record has no such length.
    Unknown,
}

/// Whether recovery looks at a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Between tail and head.
    Active,
    /// Behind the head, written or half written when the machine stopped: recovery leaves it out.
    Torn,
    /// Before the tail.
    Old,
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecordEntry {
    /// Where it stands, in the cycle that its header says.
    #[serde(serialize_with = "lsn")]
    pub lsn: Lsn,
    /// Where the tail was when it was written.
    #[serde(serialize_with = "lsn")]
    pub tail: Lsn,
    /// Block of the record before it; none for the first of a mount.
    pub previous: Option<u32>,
    /// Version of its header.
    pub version: u32,
    /// Bytes of its data.
    pub length: u32,
    /// Size of the buffer that it was written from.
    pub size: u32,
    /// Blocks of its headers.
    pub header_blocks: u32,
    /// Operations that it counts.
    pub operations: u32,
    /// Its checksum.
    pub crc: u32,
    /// Whether that is right.
    pub crc_state: CrcState,
    /// Byte order of what it holds: 1 is Linux, little-endian; 2 and 3 are big-endian Linux and Irix.
    pub format: u32,
    /// The UUID in it.
    pub uuid: String,
    /// Whether all is right with it; if not, a finding follows.
    pub whole: bool,
    /// Whether recovery looks at it.
    pub place: Place,
}

/// Which region of an item an operation is, or begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Part {
    /// The item's type; `transaction` for the transaction's header.
    pub of: &'static str,
    /// Which region, from 0.
    pub region: u16,
    /// How many the item has.
    pub regions: u16,
}

/// An operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OperationEntry {
    /// Its record.
    #[serde(serialize_with = "lsn")]
    pub record: Lsn,
    /// Which, from 0.
    pub number: u32,
    /// Its transaction.
    pub tid: u32,
    /// Bytes of its region.
    pub length: u32,
    /// Who wrote it.
    pub client: &'static str,
    /// By name.
    pub flags: Vec<String>,
    /// What its region is; none where its transaction began before the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// Blocks that hold no record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GapEntry {
    /// First.
    pub block: u64,
    /// How many.
    pub blocks: u64,
}

/// A transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TransactionEntry {
    /// Its number.
    pub tid: u32,
    /// The record in which it starts: what replay compares with a block's own LSN.
    #[serde(serialize_with = "lsn")]
    pub start: Lsn,
    /// The record in which it ends.
    #[serde(serialize_with = "lsn")]
    pub commit: Lsn,
    /// Regions of all its items.
    pub regions: usize,
}

/// An item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ItemEntry {
    /// Its transaction.
    pub tid: u32,
    /// The record in which that starts.
    #[serde(serialize_with = "lsn")]
    pub lsn: Lsn,
    /// Its type by name.
    pub kind: &'static str,
    /// Its fields.
    #[serde(flatten)]
    pub detail: Detail,
    /// Bytes of its regions, that with the fields first.
    pub regions: Vec<usize>,
    /// Their bytes, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "hex")]
    pub bytes: Option<Vec<Vec<u8>>>,
}

fn hex<S: Serializer>(bytes: &Option<Vec<Vec<u8>>>, s: S) -> Result<S::Ok, S::Error> {
    let digits = |region: &Vec<u8>| region.iter().map(|b| format!("{b:02x}")).collect::<String>();
    s.collect_seq(bytes.iter().flatten().map(digits))
}

/// What was listed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Totals {
    /// Records, torn and damaged ones among them.
    pub records: u64,
    /// Torn ones.
    pub torn: u64,
    /// Operations.
    pub operations: u64,
    /// Transactions that are committed.
    pub transactions: u64,
    /// Transactions that have no end, or whose end could not be read: recovery drops them.
    pub unfinished: u64,
    /// Items by type.
    pub items: BTreeMap<&'static str, u64>,
    /// Intents without a done item.
    pub pending: u64,
    /// Findings about what recovery looks at.
    pub findings: u64,
    /// Findings about torn records, and about what earlier cycles left.
    pub warnings: u64,
}
