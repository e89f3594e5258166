//! Reads the members of an object and the items of a list. It collects all errors, not only the
//! first one.

use duffy_api::Loc;

use super::errors::{Errors, MISSING, NOT_A_LIST, NOT_AN_OBJECT, Read};
use super::json::Json;

/// An object, whose members are read by name; other members are ignored. A member that does not
/// fit reads as if it were not there, and [`Object::finish`] returns its error.
#[derive(Debug)]
pub struct Object<'a> {
    value: &'a Json,
    errors: Errors,
}

impl<'a> Object<'a> {
    /// Refuses a value that is not an object.
    pub fn new(value: &'a Json) -> Read<Self> {
        let errors = Errors::default();
        match value {
            Json::Object(_) => Ok(Self { value, errors }),
            _ => Err(NOT_AN_OBJECT.of(value)),
        }
    }

    /// Reads a member that must be there.
    pub fn required<T: Default>(&mut self, name: &str, read: impl FnOnce(&Json) -> Read<T>) -> T {
        if self.value.member(name).is_none() {
            self.errors.append(MISSING.of(self.value).within(name));
        }
        self.given(name, read).unwrap_or_default()
    }

    /// Reads a member that can be left out, but is not `null`.
    pub fn given<T>(&mut self, name: &str, read: impl FnOnce(&Json) -> Read<T>) -> Option<T> {
        let member = read(self.value.member(name)?);
        let member = member.map_err(|errors| errors.within(name));
        self.errors.record(member)
    }

    /// Reads a member that can be left out or `null`, which mean the same.
    pub fn optional<T>(&mut self, name: &str, read: impl FnOnce(&Json) -> Read<T>) -> Option<T> {
        self.nullable(name, read).flatten()
    }

    /// Reads a member that can be left out or `null`, which mean different things.
    #[expect(
        clippy::option_option,
        reason = "left out, null and a value are three cases"
    )]
    pub fn nullable<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Json) -> Read<T>,
    ) -> Option<Option<T>> {
        self.given(name, |value| match value {
            Json::Null => Ok(None),
            value => read(value).map(Some),
        })
    }

    /// Returns what was made of the members if all of them fit.
    pub fn finish<T>(self, value: T) -> Read<T> {
        self.errors.finish(value)
    }
}

/// Reads each item of a list.
pub fn list<T>(value: &Json, read: impl Fn(&Json) -> Read<T>) -> Read<Vec<T>> {
    let Json::List(items) = value else {
        return Err(NOT_A_LIST.of(value));
    };
    let items = (0..).zip(items);
    collect(items.map(|(index, item)| (Loc::Index(index), read(item))))
}

/// Collects the parts of a value, each with its step in the path. Stops when there are as many
/// errors as fit in a reply.
pub fn collect<T>(parts: impl Iterator<Item = (Loc, Read<T>)>) -> Read<Vec<T>> {
    let mut errors = Errors::default();
    let mut values = Vec::new();
    for (step, part) in parts {
        values.extend(errors.record(part.map_err(|errors| errors.at(&step))));
        if errors.is_full() {
            break;
        }
    }
    errors.finish(values)
}

/// Reads the first of two named forms that fits. If neither does, the errors of both are returned.
pub fn either<T>(
    value: &Json,
    (first, read_first): (&str, impl FnOnce(&Json) -> Read<T>),
    (second, read_second): (&str, impl FnOnce(&Json) -> Read<T>),
) -> Read<T> {
    read_first(value).or_else(|errors| {
        let mut errors = errors.within(first);
        read_second(value).map_err(|others| {
            errors.append(others.within(second));
            errors
        })
    })
}
