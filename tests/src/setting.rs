//! What the environment says a test is to do.

use std::{
    env::{self, VarError},
    error::Error,
    path::PathBuf,
    str::FromStr,
    time::SystemTime,
};

use anyhow::{Context as _, Result};

/// The value of a variable, if it is there. Numbers may have underscores between their digits.
///
/// # Errors
/// It makes no sense; with its name.
pub fn setting<T: FromStr>(variable: &str) -> Result<Option<T>>
where
    T::Err: Error + Send + Sync + 'static,
{
    match env::var(variable) {
        Ok(text) => {
            let value = text.replace('_', "").parse();
            value.with_context(|| variable.to_owned()).map(Some)
        }
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).with_context(|| variable.to_owned()),
    }
}

/// Where randomness begins: as a variable says, or else by the time, in milliseconds.
///
/// # Errors
/// As [`setting`].
pub fn seed(variable: &str) -> Result<u64> {
    if let Some(seed) = setting(variable)? {
        return Ok(seed);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(now.as_millis() as u64)
}

/// The path that a variable has, if it is there.
pub fn path_setting(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}
