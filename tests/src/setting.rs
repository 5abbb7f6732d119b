//! What the environment says a test is to do.

use std::{env, error::Error, path::PathBuf, str::FromStr};

use anyhow::{Context as _, Result};

/// The value of a variable, if it is there. Numbers may have underscores between their digits.
///
/// # Errors
///
/// It makes no sense; with its name.
pub fn setting<T: FromStr>(variable: &str) -> Result<Option<T>>
where
    T::Err: Error + Send + Sync + 'static,
{
    let text = env::var(variable).ok();
    text.map(|text| {
        text.replace('_', "")
            .parse()
            .with_context(|| variable.to_owned())
    })
    .transpose()
}

/// The path that a variable has, if it is there.
pub fn path_setting(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}
