//! From the bytes and the content type of a body to a tree of values, and from there to a request.

use super::errors::{MISSING, Read};
use super::json::{self, Json};
use crate::http::error::ApiError;

/// A request that is read from a body.
pub trait Form: Sized {
    /// Reads the value of the body.
    fn read(value: &Json) -> Read<Self>;

    /// Reads a body. `null` counts as no body.
    fn from_body(body: &Json) -> Read<Self> {
        let form = match body {
            Json::Null => Err(MISSING.of(body)),
            value => Self::read(value),
        };
        form.map_err(|errors| errors.within("body"))
    }
}

/// Reads the bytes of a body. A body that is declared as something else than JSON counts as one
/// text, which no request accepts. Without a content type it is JSON. No body reads as `null`.
pub fn read_body(content_type: Option<&str>, bytes: &[u8]) -> Result<Json, ApiError> {
    if bytes.is_empty() {
        return Ok(Json::Null);
    }
    if !content_type.is_none_or(is_json) {
        return Ok(Json::Text(String::from_utf8_lossy(bytes).into_owned()));
    }
    json::parse(&decode(bytes).ok_or(ApiError::UnreadableBody)?)
}

/// `application/json` and `application/….+json`, with or without parameters. An empty header
/// counts as none.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    let is_json =
        |subtype: &str| subtype == "json" || subtype.ends_with("+json") && !subtype.contains('/');
    content_type.is_empty() || essence.strip_prefix("application/").is_some_and(is_json)
}

/// JSON can come in UTF-8, -16 and -32, with or without a byte order mark.
fn decode(bytes: &[u8]) -> Option<String> {
    let (width, big_endian, skip) = match bytes {
        [0, 0, 0xfe, 0xff, ..] => (4, true, 4),
        [0xff, 0xfe, 0, 0, ..] => (4, false, 4),
        [0xfe, 0xff, ..] => (2, true, 2),
        [0xff, 0xfe, ..] => (2, false, 2),
        [0xef, 0xbb, 0xbf, ..] => (1, true, 3),
        [0, 0, _, _, ..] => (4, true, 0),
        [0, _, _, _, ..] | [0, _] => (2, true, 0),
        [_, 0, 0, 0, ..] => (4, false, 0),
        [_, 0, _, _, ..] | [_, 0] => (2, false, 0),
        _ => (1, true, 0),
    };
    let bytes = bytes.get(skip..)?;
    if bytes.len() % width != 0 {
        return None;
    }
    let append = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
    let units = bytes.chunks(width).map(|unit| {
        if big_endian {
            unit.iter().fold(0, append)
        } else {
            unit.iter().rev().fold(0, append)
        }
    });
    match width {
        1 => String::from_utf8(bytes.to_vec()).ok(),
        2 => String::from_utf16(&units.map(|unit| unit as u16).collect::<Vec<_>>()).ok(),
        _ => units.map(char::from_u32).collect(),
    }
}
