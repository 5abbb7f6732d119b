//! Text in the maps' fields of fixed size.

/// Text in a field of fixed size, filled up with zeros; what is too long is cut between characters.
pub fn encode_text<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let cut = (0..=text.len().min(N))
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    bytes[..cut].copy_from_slice(&text.as_bytes()[..cut]);
    bytes
}

/// The text of such a field.
pub fn decode_text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_between_characters() {
        let field: [u8; 4] = encode_text("abcé");
        assert_eq!(decode_text(&field), "abc");
        let field: [u8; 5] = encode_text("abcé");
        assert_eq!(decode_text(&field), "abcé");
    }
}
