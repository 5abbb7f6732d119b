//! What has to hold of any text a user gives: the targets of tests/fuzz, and of a short run without it.

use std::path::Path;

use portway::{
    cli::config,
    spec::{Spec, Unpublish},
};

/// A SPEC is refused in one line, or what is printed of it is the same SPEC.
///
/// # Panics
/// If not.
pub fn spec(text: &str) {
    let refused = match (Spec::parse(text), Unpublish::parse(text)) {
        (Ok(publication), _) => {
            let printed = publication.to_string();
            assert_eq!(
                Spec::parse(&printed),
                Ok(publication),
                "{text:?} as {printed}"
            );
            return;
        }
        (Err(publish), Ok(_)) => vec![publish],
        (Err(publish), Err(unpublish)) => vec![publish, unpublish],
    };
    for error in refused {
        let error = error.to_string();
        assert!(!error.is_empty());
        assert!(text.contains('\n') || !error.contains('\n'), "{error}");
    }
}

/// A configuration file is taken, or refused in one line that names the file.
///
/// # Panics
/// If not.
pub fn config(text: &str) {
    if let Err(error) = config::parse(Path::new("portway.toml"), text) {
        let error = format!("{error:#}");
        assert!(error.starts_with("portway.toml:"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many texts of each kind.
    const TEXTS: usize = 50_000;

    /// Pieces of good texts in any order.
    fn texts(pieces: &[&str]) -> impl Iterator<Item = String> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = move |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % limit as u64) as usize
        };
        (0..TEXTS).map(move |_| {
            (0..below(12))
                .map(|_| pieces[below(pieces.len())])
                .collect()
        })
    }

    #[test]
    fn specs_made_of_pieces() {
        let pieces = [
            "9000",
            "80",
            "0",
            "65535",
            "65536",
            "-",
            ":",
            ":",
            ":",
            "/",
            "tcp",
            "UDP",
            "sctp",
            "[",
            "]",
            "10.0.0.2",
            "0.0.0.0",
            "::",
            "fd00::2",
            "[fd00::2]",
            "::ffff:10.0.0.2",
            "%",
            " ",
            "+",
            "é",
            "\n",
        ];
        texts(&pieces).for_each(|text| spec(&text));
    }

    #[test]
    fn configurations_made_of_pieces() {
        let pieces = [
            "external",
            "mode",
            "admission",
            "intake",
            "tc-hook",
            "max-flows",
            "docker",
            "no-docker",
            "publish",
            "=",
            "=",
            "\n",
            "\n",
            "\"",
            "[",
            "]",
            ",",
            "auto",
            "true",
            "4096",
            "-1",
            "#",
            "{",
            "}",
            "\\u",
            "é",
            "\0",
            ".",
            "'''",
            "\"\"\"",
        ];
        texts(&pieces).for_each(|text| config(&text));
    }
}
