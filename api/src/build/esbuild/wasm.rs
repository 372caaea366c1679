//! `import` of a WebAssembly file.
//!
//! The default export is the compiled `WebAssembly.Module`, as edge platforms have it. A file that
//! imports nothing is also instantiated, and what it exports can be imported by name, as Node and
//! the ES module integration have it.

use std::collections::BTreeSet;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const MAGIC: &[u8] = b"\0asm\x01\0\0\0";
const IMPORT_SECTION: u8 = 2;
const EXPORT_SECTION: u8 = 7;

/// The ES module that stands for these bytes.
pub(super) fn module(bytes: &[u8]) -> String {
    let mut source = format!(
        "const module=new WebAssembly.Module(globalThis.Buffer.from(\"{}\",\"base64\"));\n\
         export default module;\n",
        STANDARD.encode(bytes)
    );
    let names = exports(bytes).unwrap_or_default();
    if !names.is_empty() {
        source.push_str("const {exports}=new WebAssembly.Instance(module);\n");
    }
    for (index, name) in names.iter().enumerate() {
        let _ = writeln!(source, "const e{index}=exports.{name};export{{e{index} as {name}}};");
    }
    source
}

/// The names that a file which imports nothing exports, as far as they are names of JavaScript.
fn exports(bytes: &[u8]) -> Option<BTreeSet<String>> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut names = BTreeSet::new();
    while let Some((id, after)) = rest.split_first() {
        rest = after;
        let length = usize::try_from(number(&mut rest)?).ok()?;
        let (mut section, after) = rest.split_at_checked(length)?;
        rest = after;
        match *id {
            IMPORT_SECTION if number(&mut section)? > 0 => return None,
            EXPORT_SECTION => {
                for _ in 0..number(&mut section)? {
                    let length = usize::try_from(number(&mut section)?).ok()?;
                    let (name, after) = section.split_at_checked(length)?;
                    // The kind, a byte, and the index.
                    section = after.get(1..)?;
                    number(&mut section)?;
                    names.extend(
                        std::str::from_utf8(name).ok().filter(|n| is_name(n)).map(str::to_owned),
                    );
                }
            }
            _ => {}
        }
    }
    Some(names)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$'))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$'))
        && text != "default"
}

/// An unsigned LEB128 number of at most 32 bits.
fn number(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(module (func (export "add") (param i32 i32) (result i32) ...))`
    const ADD: &[u8] = b"\0asm\x01\0\0\0\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f\x03\x02\x01\0\
        \x07\x07\x01\x03add\0\0\x0a\x09\x01\x07\0\x20\0\x20\x01\x6a\x0b";

    #[test]
    fn exports_are_read() {
        assert_eq!(exports(ADD), Some(BTreeSet::from(["add".to_owned()])));
        assert!(module(ADD).contains("export{e0 as add}"));
        let importing = b"\0asm\x01\0\0\0\x02\x07\x01\x01a\x01b\x03\x7f\0";
        assert_eq!(exports(importing), None);
    }

    #[test]
    fn damaged_files_export_nothing() {
        for length in 0..ADD.len() {
            let _ = exports(&ADD[..length]);
        }
        assert_eq!(exports(b"\0asm\x01\0\0\0\x07\xff\xff\xff\xff\x0f"), None);
        assert_eq!(exports(b"no wasm"), None);
    }
}
