//! Numbers and sizes as the XFS tools take and show them.

/// What the suffixes `b` and `s` stand for, where they are allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Units {
    /// Bytes in a filesystem block.
    pub block: Option<u32>,
    /// Bytes in a sector.
    pub sector: Option<u32>,
}

/// Takes a number from the start of a text, as C's strtoull does with base 0: blanks in front are passed over, a plus sign too; it is
/// octal with a leading 0, hexadecimal with 0x. The rest follows.
fn leading_number(text: &str) -> Result<(u64, &str), &'static str> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
    let text = text.strip_prefix('+').unwrap_or(text);
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let body = hex.unwrap_or(text);
    let radix = match hex {
        Some(_) => 16,
        None if body.len() > 1 && body.starts_with('0') => 8,
        None => 10,
    };
    let digits = body.find(|c: char| !c.is_digit(radix)).unwrap_or(body.len());
    let (number, rest) = body.split_at(digits);
    let empty = if number.is_empty() { "it does not start with a number" } else { "the number is too large" };
    u64::from_str_radix(number, radix).map(|n| (n, rest)).map_err(|_| empty)
}

/// Parses a number without suffix: decimal, octal with a leading 0, hexadecimal with 0x. Example: `parse_number("010")` is 8.
///
/// # Errors
/// A sentence with the value and what is wrong with it.
pub fn parse_number(text: &str) -> Result<u64, String> {
    let bad = |why: &str| format!("\"{}\" is no number: {why}", crate::text::escape(text.as_bytes()));
    match leading_number(text) {
        Ok((n, "")) => Ok(n),
        Ok(_) => Err(bad("nothing may follow the digits")),
        Err(why) => Err(bad(why)),
    }
}

/// Parses bytes: a number as [`parse_number`] takes it and at most one suffix: k m g t p e for powers of 1024, s for sectors, b for
/// blocks. Example: `parse_size("64k", Units::default())` is 65536.
///
/// # Errors
/// A sentence with the value and what is wrong with it.
pub fn parse_size(text: &str, units: Units) -> Result<u64, String> {
    let bad = |why: &str| format!("\"{}\" is no size: {why}", crate::text::escape(text.as_bytes()));
    let (value, suffix) = leading_number(text).map_err(bad)?;
    let power = |n: u32| Ok(1u64 << (10 * n));
    let factor: Result<u64, String> = match suffix {
        "" => Ok(1),
        "k" | "K" => power(1),
        "m" | "M" => power(2),
        "g" | "G" => power(3),
        "t" | "T" => power(4),
        "p" | "P" => power(5),
        "e" | "E" => power(6),
        "s" | "S" => units.sector.map(u64::from).ok_or_else(|| bad("sectors are not allowed here")),
        "b" | "B" => units.block.map(u64::from).ok_or_else(|| bad("blocks are not allowed here")),
        _ => Err(bad("the suffix must be one of k m g t p e s b")),
    };
    value.checked_mul(factor?).ok_or_else(|| bad("it is larger than 16 EiB"))
}

/// Shows bytes in the largest binary unit in which the number has at most four digits: `4 KiB`, `1.5 GiB`.
pub fn show_size(bytes: u64) -> String {
    const NAMES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    let name = NAMES.get(unit).copied().unwrap_or("EiB");
    let one = 1u64 << (10 * unit);
    if bytes.is_multiple_of(one) {
        return format!("{} {name}", bytes / one);
    }
    format!("{:.1} {name}", bytes as f64 / one as f64)
}

#[cfg(test)]
mod tests {
    use super::{Units, parse_number, parse_size, show_size};

    #[test]
    fn numbers_are_those_of_c() {
        for (text, n) in [
            ("0", 0),
            ("10", 10),
            ("010", 8),
            ("0x10", 16),
            ("0X1f", 31),
            (" +7", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_number(text), Ok(n), "{text}");
        }
        for text in ["", "-1", "08", "0x", "4k", "1 ", "18446744073709551616", "1.0"] {
            assert!(parse_number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_parsed() {
        let units = Units { block: Some(4096), sector: Some(512) };
        for (text, bytes) in [
            ("0", 0),
            ("64k", 65536),
            ("2G", 2 << 30),
            ("0x10", 16),
            ("010", 8),
            ("3b", 12288),
            ("2s", 1024),
            ("7e", 7 << 60),
        ] {
            assert_eq!(parse_size(text, units), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "1kk", "16e", "99999999999999999999", "08", "1 k"] {
            assert!(parse_size(text, units).is_err(), "{text}");
        }
        assert!(parse_size("3b", Units::default()).is_err());
    }

    #[test]
    fn sizes_are_shown() {
        for (bytes, text) in [(0, "0 B"), (512, "512 B"), (4096, "4 KiB"), (3 << 29, "1.5 GiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(show_size(bytes), text);
        }
    }
}
