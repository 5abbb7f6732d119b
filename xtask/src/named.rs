//! Arguments that may be repeated, and mean all that there is where none is given.

use clap::ValueEnum;

/// Those that are named, each once and in the order of their declaration; all if none is.
pub fn or_all<T: ValueEnum + Copy + Ord>(named: &[T]) -> Vec<T> {
    let mut values = match named {
        [] => T::value_variants().to_vec(),
        named => named.to_vec(),
    };
    values.sort_unstable();
    values.dedup();
    values
}

/// The files of tests that are named, as they are; `all` if none is.
pub fn files_or(all: &[&str], named: &[String]) -> Vec<String> {
    match named {
        [] => all.iter().map(|file| (*file).to_owned()).collect(),
        named => named.to_vec(),
    }
}

/// What a value is called on the command line; nothing if it cannot be named there.
pub fn name(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
