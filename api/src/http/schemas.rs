//! Schemas that no type of a field gives: it may be of several types, or its bounds are kept
//! elsewhere. For the description alone.

use cloudserve_protocol::limits::{EventFormat, Limits};
use serde_json::json;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType};
use utoipa::openapi::{Object, ObjectBuilder, OneOfBuilder, RefOr, Schema, Type};

const EVENT_FORMAT: &str = "eventFormat";

/// Files of a deploy.
pub(super) fn files() -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let bytes = ObjectBuilder::new()
        .property("base64", ObjectBuilder::new().schema_type(Type::String))
        .required("base64")
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    let content = OneOfBuilder::new().item(text).item(bytes);
    or_null([Type::Object])
        .description(Some("Path to text, or to `{\"base64\":\"...\"}` for what is none."))
        .additional_properties(Some(RefOr::<Schema>::from(content)))
        .build()
}

/// Packages of a deploy.
pub(super) fn dependencies() -> Object {
    or_null([Type::Object, Type::Array])
        .description(Some("`{\"axios\":\"^1\"}` or `[\"axios@^1\"]`."))
        .build()
}

/// A file of npm's.
pub(super) fn npm_file() -> Object {
    or_null([Type::Object, Type::String])
        .description(Some("What is in the file, or its text."))
        .build()
}

/// The limits of a function.
pub(super) fn limits() -> Object {
    let names = Limits::MIN.numbers().into_iter().map(|(name, _)| name).chain([EVENT_FORMAT]);
    names.fold(with_limits(ObjectBuilder::new()), ObjectBuilder::required).build()
}

/// Limits that are to be changed.
pub(super) fn changed_limits() -> Object {
    with_limits(or_null([Type::Object]))
        .description(Some("What is left out stays as it was."))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
        .build()
}

fn with_limits(object: ObjectBuilder) -> ObjectBuilder {
    let numbers = Limits::MIN.numbers().into_iter().zip(Limits::MAX.numbers());
    let object = numbers.fold(object, |object, ((name, min), (_, max))| {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        object.property(name, number.maximum(Some(max)).minimum(Some(min)))
    });
    let formats =
        [EventFormat::Auto, EventFormat::Parsed, EventFormat::Lambda, EventFormat::LambdaV1];
    let format = ObjectBuilder::new().schema_type(Type::String);
    object.property(EVENT_FORMAT, format.enum_values(Some(formats.map(|format| json!(format)))))
}

/// One of these types, or null.
fn or_null<const N: usize>(types: [Type; N]) -> ObjectBuilder {
    let types = types.into_iter().chain([Type::Null]);
    ObjectBuilder::new().schema_type(types.collect::<SchemaType>())
}
