//! A second build of the program, to be upgraded to.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

/// Another build of the program under test: a copy in which a file name in its eBPF object's debugging
/// information is another one, and nothing else.
pub fn other_build(folder: &Path) -> Result<PathBuf> {
    const NAME: &[u8] = b"dataplane-ebpf/src/programs.rs";
    const OTHER: &[u8] = b"dataplane-ebpf/src/programs.RS";
    let mut bytes = fs::read(super::program()?)?;
    let mut count = 0;
    for start in 0..bytes.len() - NAME.len() {
        if bytes[start..].starts_with(NAME) {
            bytes[start..start + NAME.len()].copy_from_slice(OTHER);
            count += 1;
        }
    }
    ensure!(count > 0, "the program names no file of its eBPF object");
    let path = folder.join("portway");
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
