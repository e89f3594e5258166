//! The beginning and the last lines of a program's output, in bounded memory. The lines can go into a log or a
//! database column.

use std::collections::VecDeque;

/// Bytes of one line that are kept; the rest of a longer line is dropped.
const LINE_BYTES: usize = 2_000;
/// Bytes that are kept of all lines together.
const TOTAL_BYTES: usize = 64 * 1024;

/// Which of the two streams a chunk came from: their half lines are kept apart.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Out = 0,
    Err = 1,
}

/// The first bytes of standard output, and the last lines of two streams in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Excerpt {
    first_bytes: usize,
    beginning: Vec<u8>,
    last_lines: usize,
    lines: VecDeque<String>,
    /// In `lines`.
    bytes: usize,
    partial: [Vec<u8>; 2],
    /// Bytes read so far, kept or not.
    pub(super) seen: u64,
}

impl Excerpt {
    /// Keeps this many bytes and lines.
    pub(super) fn new(first_bytes: usize, last_lines: usize) -> Self {
        Self {
            first_bytes,
            last_lines,
            ..Self::default()
        }
    }

    /// Reads the next bytes of a stream.
    pub(super) fn push(&mut self, stream: Stream, chunk: &[u8]) {
        self.seen += chunk.len() as u64;
        if let Stream::Out = stream {
            let room = self.first_bytes.saturating_sub(self.beginning.len());
            self.beginning.extend(chunk.iter().take(room));
        }
        for piece in chunk.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, ended) = match piece.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                _ => (piece, false),
            };
            let partial = &mut self.partial[stream as usize];
            let room = LINE_BYTES.saturating_sub(partial.len());
            partial.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                let line = std::mem::take(partial);
                self.keep(&line);
            }
        }
    }

    /// The first bytes, and the last lines without a newline at the end. Half lines count as lines.
    pub(super) fn into_parts(mut self) -> (Vec<u8>, String) {
        for partial in std::mem::take(&mut self.partial) {
            self.keep(&partial);
        }
        (self.beginning, Vec::from(self.lines).join("\n"))
    }

    fn keep(&mut self, line: &[u8]) {
        let line = clean_line(line);
        if line.is_empty() {
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.last_lines || self.bytes > TOTAL_BYTES {
            self.bytes -= self.lines.pop_front().map_or(0, |dropped| dropped.len());
        }
    }
}

/// Makes a line plain text: no terminal control sequences, no control characters (PostgreSQL refuses NUL), no
/// invalid UTF-8, no blanks at the end.
fn clean_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            // A control sequence ends with a character in @..~, any other one after its intermediates in blank../.
            let last = if chars.next_if_eq(&'[').is_some() {
                '@'..='~'
            } else {
                '0'..='~'
            };
            for char in chars.by_ref() {
                if last.contains(&char) {
                    break;
                }
            }
        } else if char == '\t' || !char.is_control() {
            clean.push(char);
        }
    }
    clean.truncate(clean.trim_end().len());
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(limit: usize, chunks: &[(Stream, &[u8])]) -> String {
        let mut excerpt = Excerpt::new(0, limit);
        for (stream, chunk) in chunks {
            excerpt.push(*stream, chunk);
        }
        excerpt.into_parts().1
    }

    #[test]
    fn keeps_the_last_lines_and_half_lines() {
        let text = tail_of(
            3,
            &[
                (Stream::Out, b"1\n2\n3\n4"),
                (Stream::Out, b"4\n"),
                (Stream::Out, b"5"),
            ],
        );
        assert_eq!(text, "3\n44\n5");
    }

    #[test]
    fn half_lines_of_the_two_streams_do_not_mix() {
        let text = tail_of(
            9,
            &[
                (Stream::Out, b"on"),
                (Stream::Err, b"tw"),
                (Stream::Out, b"e\n"),
                (Stream::Err, b"o\n"),
            ],
        );
        assert_eq!(text, "one\ntwo");
    }

    #[test]
    fn control_sequences_nul_and_bad_utf8_are_made_harmless() {
        assert_eq!(
            tail_of(
                9,
                &[(
                    Stream::Out,
                    b"\x1b[1;31mred\x1b[0m\0 \xff\xfe \x1b(Bx\t.\x07\n"
                )]
            ),
            "red \u{fffd}\u{fffd} x\t."
        );
        assert_eq!(tail_of(9, &[(Stream::Out, b"\x1b[\x1b[\x1b")]), "");
    }

    #[test]
    fn progress_bars_and_windows_line_ends_are_lines() {
        assert_eq!(
            tail_of(2, &[(Stream::Out, b"10%\r20%\r30%\r\n")]),
            "20%\n30%"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut excerpt = Excerpt::new(5_000, 1_000_000);
        for _ in 0..5_000 {
            excerpt.push(Stream::Out, &[b'x'; 999]);
            excerpt.push(Stream::Err, b"0123456789\n");
        }
        assert!(excerpt.partial[0].len() <= LINE_BYTES);
        assert!(excerpt.bytes <= TOTAL_BYTES);
        assert_eq!(excerpt.beginning, [b'x'; 5_000]);
        assert_eq!(excerpt.seen, 5_000 * 1_010);
    }

    #[test]
    fn no_lines_wanted_means_none_kept() {
        assert_eq!(tail_of(0, &[(Stream::Out, b"a\nb\n")]), "");
    }
}
