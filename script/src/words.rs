//! A line cut into words.

use crate::parse::Expected;

/// The longest string that a line may hold, in bytes.
pub(crate) const LONGEST_STRING: usize = 65536;

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word<'a> {
    /// A run of characters without a space.
    Bare(&'a str),
    /// The string between double quotes, and its source text.
    Quoted { bytes: Vec<u8>, source: &'a str },
}

impl<'a> Word<'a> {
    /// The word's source text.
    pub(crate) fn source(&self) -> &'a str {
        match self {
            Self::Bare(word) => word,
            Self::Quoted { source, .. } => source,
        }
    }
}

/// The words of `line` up to a comment; the error names the wrong word.
pub(crate) fn split(line: &str) -> Result<Vec<Word<'_>>, (&str, Expected)> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, length) = if rest.starts_with('"') {
            quoted(rest)?
        } else {
            let length = rest
                .find(|c: char| c.is_whitespace() || c == '#' || c == '"')
                .unwrap_or(rest.len());
            (Word::Bare(&rest[..length]), length)
        };
        words.push(word);
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

/// The string at the start of `rest`, and how many bytes of the line it takes.
fn quoted(rest: &str) -> Result<(Word<'_>, usize), (&str, Expected)> {
    let mut bytes = Vec::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let source = &rest[..=at];
                if bytes.len() > LONGEST_STRING {
                    return Err((source, Expected::ShortString));
                }
                return Ok((Word::Quoted { bytes, source }, at + 1));
            }
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => bytes.push(b'\n'),
                Some('t') => bytes.push(b'\t'),
                Some('\\') => bytes.push(b'\\'),
                Some('"') => bytes.push(b'"'),
                Some('x') => {
                    let digits = rest.get(at + 2..at + 4).unwrap_or("");
                    let byte = digits
                        .bytes()
                        .all(|digit| digit.is_ascii_hexdigit())
                        .then(|| u8::from_str_radix(digits, 16).ok())
                        .flatten()
                        .ok_or((&rest[at..], Expected::Escape))?;
                    bytes.push(byte);
                    chars.nth(1);
                }
                _ => return Err((&rest[at..], Expected::Escape)),
            },
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err((rest, Expected::ClosingQuote))
}
