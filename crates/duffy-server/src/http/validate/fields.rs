//! Walks a body and collects what did not fit: all of it, not the first only.

use std::ops::RangeInclusive;
use std::rc::Rc;

use duffy_api::{FieldError, Loc};
use serde_json::Value;

use super::json::Json;
use super::problem::Problem;
use super::scalars;

/// Most errors in one reply: it has to stay small however long a list the body holds.
const MAX_ERRORS: usize = 1000;

/// Says that a field did not fit and that this has been recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported;

/// What reading a field gives.
pub type Read<T> = Result<T, Reported>;

/// What did not fit, in the order in which it was found.
#[derive(Debug, Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a problem with the value at a place.
    pub fn add(&mut self, place: &Place, problem: &Problem, input: Value) -> Reported {
        if !self.is_full() {
            self.0.push(FieldError {
                kind: problem.kind().to_owned(),
                loc: place.steps(),
                msg: problem.message(),
                input,
                ctx: problem.context(),
            });
        }
        Reported
    }

    /// Records what was found elsewhere.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.truncate(MAX_ERRORS);
    }

    /// Whether there are as many as fit in a reply.
    pub fn is_full(&self) -> bool {
        self.0.len() >= MAX_ERRORS
    }

    /// The value when nothing was recorded, else what was.
    pub fn finish<T>(self, value: Read<T>) -> Result<T, Vec<FieldError>> {
        match value {
            Ok(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// Where a value stands in a request: a step, and those before it. A step is cheap however deep
/// it is, for there are many in a body and few of them are told.
#[derive(Debug, Clone)]
pub struct Place(Rc<Step>);

#[derive(Debug)]
struct Step {
    loc: Loc,
    before: Option<Place>,
}

impl Place {
    /// The body itself.
    pub fn body() -> Self {
        Self::step(Loc::Name("body".into()), None)
    }

    /// A part of the path.
    pub fn path(name: &str) -> Self {
        Self::step(Loc::Name("path".into()), None).then(name)
    }

    /// A parameter of the query.
    pub fn query(name: &str) -> Self {
        Self::step(Loc::Name("query".into()), None).then(name)
    }

    /// A member, or the name of one of several forms, of what is here.
    pub fn then(&self, name: &str) -> Self {
        Self::step(Loc::Name(name.to_owned()), Some(self.clone()))
    }

    /// A position in what is here.
    pub fn at(&self, index: u64) -> Self {
        Self::step(Loc::Index(index), Some(self.clone()))
    }

    fn step(loc: Loc, before: Option<Self>) -> Self {
        Self(Rc::new(Step { loc, before }))
    }

    /// The steps from the outside in.
    fn steps(&self) -> Vec<Loc> {
        let steps = std::iter::successors(Some(self), |place| place.0.before.as_ref());
        let mut steps: Vec<Loc> = steps.map(|place| place.0.loc.clone()).collect();
        steps.reverse();
        steps
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    /// The value.
    pub value: &'a Json,
    /// Where it stands.
    pub place: Place,
}

impl<'a> Field<'a> {
    /// Records a problem with this value.
    pub fn refuse(&self, problem: &Problem, errors: &mut Errors) -> Reported {
        errors.add(&self.place, problem, self.value.to_value())
    }

    /// Reads a single value.
    pub fn scalar<T>(
        &self,
        errors: &mut Errors,
        parse: impl FnOnce(&Json) -> Result<T, Problem>,
    ) -> Read<T> {
        parse(self.value).map_err(|problem| self.refuse(&problem, errors))
    }

    /// Reads an object.
    pub fn object(&self, errors: &mut Errors) -> Read<Object<'a>> {
        match self.value {
            Json::Object(_) => Ok(Object(self.clone())),
            _ => Err(self.refuse(&Problem::NotAnObject, errors)),
        }
    }

    /// Reads each item of a list.
    pub fn list<T>(
        &self,
        errors: &mut Errors,
        mut read: impl FnMut(&Field<'a>, &mut Errors) -> Read<T>,
    ) -> Read<Vec<T>> {
        let Json::List(items) = self.value else {
            return Err(self.refuse(&Problem::NotAList, errors));
        };
        let mut result = Ok(Vec::new());
        for (index, value) in (0..).zip(items) {
            if errors.is_full() {
                return Err(Reported);
            }
            let place = self.place.at(index);
            match (read(&Field { value, place }, errors), &mut result) {
                (Ok(item), Ok(list)) => list.push(item),
                (Ok(_), Err(Reported)) => {}
                (Err(reported), _) => result = Err(reported),
            }
        }
        result
    }
}

/// An object, whose members are read by name; others are ignored.
#[derive(Debug, Clone)]
pub struct Object<'a>(Field<'a>);

impl<'a> Object<'a> {
    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<Field<'a>> {
        self.0.value.member(name).map(|value| Field {
            value,
            place: self.0.place.then(name),
        })
    }

    /// Reads a member that must be there.
    pub fn required<T>(
        &self,
        name: &str,
        errors: &mut Errors,
        read: impl FnOnce(&Field<'a>, &mut Errors) -> Read<T>,
    ) -> Read<T> {
        match self.member(name) {
            Some(field) => read(&field, errors),
            None => Err(errors.add(
                &self.0.place.then(name),
                &Problem::Missing,
                self.0.value.to_value(),
            )),
        }
    }

    /// Reads a member that can be left out, but not `null`.
    pub fn defaulted<T>(
        &self,
        name: &str,
        errors: &mut Errors,
        default: T,
        read: impl FnOnce(&Field<'a>, &mut Errors) -> Read<T>,
    ) -> Read<T> {
        self.member(name)
            .map_or(Ok(default), |field| read(&field, errors))
    }

    /// Reads a member that can be left out or `null`, which mean the same.
    pub fn optional<T>(
        &self,
        name: &str,
        errors: &mut Errors,
        read: impl FnOnce(&Field<'a>, &mut Errors) -> Read<T>,
    ) -> Read<Option<T>> {
        Ok(self.nullable(name, errors, read)?.flatten())
    }

    /// Reads a member that can be left out or `null`, which mean different things.
    #[expect(
        clippy::option_option,
        reason = "left out, null and a value are three cases"
    )]
    pub fn nullable<T>(
        &self,
        name: &str,
        errors: &mut Errors,
        read: impl FnOnce(&Field<'a>, &mut Errors) -> Read<T>,
    ) -> Read<Option<Option<T>>> {
        match self.member(name) {
            None => Ok(None),
            Some(Field {
                value: Json::Null, ..
            }) => Ok(Some(None)),
            Some(field) => read(&field, errors).map(|value| Some(Some(value))),
        }
    }
}

/// Reads the number of a row from the path. `None` is a number that no row can have.
pub fn path_id(text: &str, errors: &mut Errors) -> Read<Option<i64>> {
    let value = Json::Text(text.to_owned());
    let field = Field {
        value: &value,
        place: Place::path("id"),
    };
    let number = field.scalar(errors, scalars::integer)?;
    Ok(i64::try_from(number).ok())
}

/// A parameter of the query that is a number in a range.
pub fn query_number(
    name: &str,
    text: &str,
    range: &RangeInclusive<i64>,
    errors: &mut Errors,
) -> Read<i64> {
    let value = Json::Text(text.to_owned());
    let field = Field {
        value: &value,
        place: Place::query(name),
    };
    let number = field.scalar(errors, scalars::integer)?;
    if number < i128::from(*range.start()) {
        return Err(field.refuse(&Problem::Below(*range.start()), errors));
    }
    i64::try_from(number)
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| field.refuse(&Problem::Above(*range.end()), errors))
}
