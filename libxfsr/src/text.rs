//! Showing bytes from disk to people.

use std::fmt::Write as _;

/// Escapes control characters, invalid UTF-8, bidirectional overrides and the backslash, so that a name from a disk cannot
/// steer a terminal. Example: `escape(b"a\x1b[2J")` gives `a\x1b[2J` as visible text.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let steering = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
            if c == '\\' {
                out.push_str("\\\\");
            } else if c.is_control() || steering {
                let mut buf = [0; 4];
                for b in c.encode_utf8(&mut buf).bytes() {
                    let _ = write!(out, "\\x{b:02x}");
                }
            } else {
                out.push(c);
            }
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out
}

/// As [`escape`], and so that the whole is one word for [`words`]: blanks and quotes stand behind a backslash, and nothing at all is `""`. What is
/// printed so can be typed back as it stands.
pub fn escape_word(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "\"\"".to_owned();
    }
    let escaped = escape(bytes);
    let mut out = String::with_capacity(escaped.len());
    for c in escaped.chars() {
        if matches!(c, ' ' | '"' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Splits a line into words, which are bytes: a name on a disk need not be text. Blanks part words, quotes of either kind keep blanks, and a
/// backslash, also inside quotes, takes the next character as it is; `\xHH` is the byte with that number. The opposite of [`escape_word`].
///
/// # Errors
/// What is wrong with the line: a quote that is not closed, a backslash with nothing behind it, `\x` without two hexadecimal digits.
pub fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<Vec<u8>>, None);
    let mut rest = line.iter().copied();
    while let Some(c) = rest.next() {
        match c {
            b'\\' => {
                let byte = match rest.next().ok_or("nothing stands behind the last backslash")? {
                    b'x' => {
                        let mut digit = || char::from(rest.next()?).to_digit(16);
                        let digits = digit().zip(digit()).ok_or("\\x needs two hexadecimal digits")?;
                        u8::try_from(digits.0 * 16 + digits.1).unwrap_or_default()
                    }
                    other => other,
                };
                word.get_or_insert_default().push(byte);
            }
            b'"' | b'\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            _ if quote == Some(c) => quote = None,
            b' ' | b'\t'..=b'\r' if quote.is_none() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::{escape, escape_word, words};

    #[test]
    fn lines_are_split_at_blanks_outside_quotes() {
        let split = |line: &[u8]| words(line).map(|w| w.iter().map(|w| escape(w)).collect::<Vec<_>>());
        assert_eq!(split(b"ls 'a b' c\\ d \"\"\t e").expect("words"), ["ls", "a b", "c d", "", "e"]);
        assert_eq!(split(b"\\x41\\x0a'\\x42\\'' \"a'b\" \xff").expect("words"), ["A\\x0aB'", "a'b", "\\xff"]);
        for bad in [&b"ls 'a"[..], b"a\\", b"\\x4", b"\\x4g", b"\\x"] {
            assert!(words(bad).is_err(), "{bad:?}");
        }
        // A blank of another alphabet parts nothing.
        assert_eq!(words("a\u{a0}b".as_bytes()).map(|w| w.len()), Ok(1));
    }

    #[test]
    fn what_is_printed_can_be_typed_back() {
        let mut names: Vec<Vec<u8>> =
            (0..=255u8).flat_map(|b| [vec![b], vec![b'a', b, b'x'], vec![b'\\', b]]).collect();
        names.extend([
            Vec::new(),
            b"\\x41".to_vec(),
            b"#".to_vec(),
            "gr\u{fc}n \u{202e}".as_bytes().to_vec(),
            (0..=255).collect(),
        ]);
        for name in names {
            let printed = escape_word(&name);
            assert!(printed.chars().all(|c| !c.is_control()), "{printed}");
            assert_eq!(
                words(format!("ls {printed} x").as_bytes()),
                Ok(vec![b"ls".to_vec(), name, b"x".to_vec()]),
                "{printed}"
            );
        }
        assert_eq!(escape_word(b"it's \"x\"\n"), "it\\'s\\ \\\"x\\\"\\x0a");
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(escape(b"a\x1b[2J\n\xff\\"), "a\\x1b[2J\\x0a\\xff\\\\");
        assert_eq!(escape("grün".as_bytes()), "grün");
        assert_eq!(escape("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }
}
