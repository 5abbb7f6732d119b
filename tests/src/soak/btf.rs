//! The kernel's own type information, as far as drops take it: where a field is, and what numbers are called. By
//! Documentation/bpf/btf.rst; the crates that read it are not to everybody's licence, or keep types for themselves.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result, ensure};

/// Where the kernel has it.
const PATH: &str = "/sys/kernel/btf/vmlinux";

/// `BTF_MAGIC`, include/uapi/linux/btf.h.
const MAGIC: u16 = 0xeb9f;

/// The kinds that are looked for, `BTF_KIND_*`.
const STRUCT: u32 = 4;
const ENUM: u32 = 6;

/// The bytes of a type, of a member and of an enumerator.
const TYPE: usize = 12;
const MEMBER: usize = 12;
const ENUMERATOR: usize = 8;

/// All types.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
}

/// One of them.
struct Type<'a> {
    name: &'a str,
    kind: u32,
    /// What follows it.
    rest: &'a [u8],
}

impl Btf {
    /// Reads those of the kernel that runs.
    ///
    /// # Errors
    /// It has none.
    pub fn of_kernel() -> Result<Self> {
        let bytes = fs::read(PATH).context("the kernel does not tell its types")?;
        let magic = bytes.get(..2).map(|magic| magic == MAGIC.to_ne_bytes());
        ensure!(magic == Some(true), "{PATH} is not what it should be");
        let header = word(&bytes, 4)?;
        let part = |offset: usize| -> Result<Vec<u8>> {
            let start = header + word(&bytes, offset)?;
            let part = bytes.get(start..start + word(&bytes, offset + 4)?);
            Ok(part.context("types that are cut short")?.to_vec())
        };
        Ok(Self {
            types: part(8)?,
            strings: part(16)?,
        })
    }

    /// Where a struct has a member, in bytes.
    ///
    /// # Errors
    /// There is no such member, or it begins within a byte.
    pub fn offset_of(&self, name: &str, member: &str) -> Result<u32> {
        let members = self.find(STRUCT, name)?.rest;
        for bytes in members.chunks_exact(MEMBER) {
            if self.string(word(bytes, 0)?)? == member {
                // Only of bit fields are there other bits above.
                let bits = word(bytes, 8)?;
                ensure!(bits % 8 == 0, "{name}.{member} is no field of bytes");
                return Ok(u32::try_from(bits / 8)?);
            }
        }
        anyhow::bail!("struct {name} has no {member}")
    }

    /// The names of an enumeration's numbers.
    ///
    /// # Errors
    /// There is no such enumeration.
    pub fn enumerators(&self, name: &str) -> Result<HashMap<u32, &str>> {
        let enumerators = self.find(ENUM, name)?.rest.chunks_exact(ENUMERATOR);
        enumerators
            .map(|bytes| {
                let value = u32::try_from(word(bytes, 4)?)?;
                Ok((value, self.string(word(bytes, 0)?)?))
            })
            .collect()
    }

    fn find(&self, kind: u32, name: &str) -> Result<Type<'_>> {
        let mut at = 0;
        while at < self.types.len() {
            let found = self.at(at)?;
            if found.kind == kind && found.name == name {
                return Ok(found);
            }
            at += TYPE + found.rest.len();
        }
        anyhow::bail!("the kernel has no {name}")
    }

    fn at(&self, at: usize) -> Result<Type<'_>> {
        let bytes = &self.types[at..];
        let info = u32::try_from(word(bytes, 4)?)?;
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let rest = match kind {
            // An integer, a variable, a tag.
            1 | 14 | 17 => 4,
            // An array.
            3 => 12,
            // A struct, a union, a section, a 64-bit enumeration.
            STRUCT | 5 | 15 | 19 => count * 12,
            // An enumeration, a function's parameters.
            ENUM | 13 => count * 8,
            _ => 0,
        };
        let rest = bytes.get(TYPE..TYPE + rest);
        Ok(Type {
            name: self.string(word(bytes, 0)?)?,
            kind,
            rest: rest.context("a type that is cut short")?,
        })
    }

    fn string(&self, at: usize) -> Result<&str> {
        let bytes = self.strings.get(at..).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0);
        Ok(std::str::from_utf8(&bytes[..end.unwrap_or_default()])?)
    }
}

/// The 32-bit number there.
fn word(bytes: &[u8], at: usize) -> Result<usize> {
    let word = bytes.get(at..at + 4).context("types that are cut short")?;
    Ok(u32::from_ne_bytes(word.try_into()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_where_fields_are_and_what_numbers_mean() -> Result<()> {
        let Ok(btf) = Btf::of_kernel() else {
            // A kernel without.
            return Ok(());
        };
        // `next` and `prev` are what a buffer has begun with since it is in lists.
        assert_eq!(btf.offset_of("list_head", "prev")?, 8);
        assert!(btf.offset_of("list_head", "tail").is_err());
        assert!(btf.offset_of("no_such_struct", "prev").is_err());
        let verdicts = btf.enumerators("xdp_action")?;
        assert_eq!(verdicts.get(&2), Some(&"XDP_PASS"));
        Ok(())
    }
}
