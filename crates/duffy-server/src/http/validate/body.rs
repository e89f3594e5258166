//! From the bytes and the content type of a body to a tree of values.

use duffy_api::FieldError;
use serde_json::Value;

use super::fields::{Errors, Field, Place, Read};
use super::json::{self, Json, JsonError};
use super::problem::Problem;

/// A body that could be read: what came, if anything did.
#[derive(Debug, Clone, PartialEq)]
pub struct Body(Option<Json>);

impl Body {
    /// The body as a field; nothing at all, and `null`, are missing.
    pub(super) fn field(&self, errors: &mut Errors) -> Read<Field<'_>> {
        match &self.0 {
            None | Some(Json::Null) => {
                Err(errors.add(&Place::body(), &Problem::Missing, Value::Null))
            }
            Some(value) => Ok(Field {
                value,
                place: Place::body(),
            }),
        }
    }
}

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq)]
pub enum Unreadable {
    /// It says that it is JSON, and is not.
    Json(Box<FieldError>),
    /// It cannot be decoded at all.
    Encoding,
}

/// Reads a body. What is not declared as JSON counts as one text, which then fits nowhere;
/// without a content type it is taken for JSON.
pub fn read_body(content_type: Option<&str>, bytes: &[u8]) -> Result<Body, Unreadable> {
    if bytes.is_empty() {
        return Ok(Body(None));
    }
    if !content_type.is_none_or(is_json) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        return Ok(Body(Some(Json::Text(text))));
    }
    let text = decode(bytes).ok_or(Unreadable::Encoding)?;
    match json::parse(&text) {
        Ok(value) => Ok(Body(Some(value))),
        Err(JsonError::TooManyDigits) => Err(Unreadable::Encoding),
        Err(JsonError::Syntax { position, message }) => {
            let problem = Problem::JsonInvalid(message);
            let mut errors = Errors::new();
            let place = Place::body().at(position);
            let reported = errors.add(&place, &problem, Value::Object(serde_json::Map::new()));
            let error = errors
                .finish::<()>(Err(reported))
                .err()
                .and_then(|errors| errors.into_iter().next());
            Err(error.map_or(Unreadable::Encoding, |error| {
                Unreadable::Json(Box::new(error))
            }))
        }
    }
}

/// `application/json` and `application/….+json`, with or without parameters; an empty header is
/// as good as none.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if content_type.is_empty() {
        return true;
    }
    let essence = essence.to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return false;
    };
    kind == "application"
        && !subtype.contains('/')
        && (subtype == "json" || subtype.ends_with("+json"))
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
    let units = bytes.chunks(width).map(|unit| {
        if unit.len() != width {
            return None;
        }
        let fold = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        Some(if big_endian {
            unit.iter().fold(0, fold)
        } else {
            unit.iter().rev().fold(0, fold)
        })
    });
    match width {
        1 => std::str::from_utf8(bytes).ok().map(str::to_owned),
        2 => {
            let units: Option<Vec<u16>> = units.map(|unit| unit?.try_into().ok()).collect();
            String::from_utf16(&units?).ok()
        }
        _ => units.map(|unit| char::from_u32(unit?)).collect(),
    }
}
