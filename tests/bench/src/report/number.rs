//! Numbers as a reader likes them.

/// Three significant digits, and thousands set apart: `0.00371`, `1.70`, `17,300`.
pub fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    // Rounding may add a digit: 9.996 is 10.0.
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    let magnitude = rounded.abs().log10().floor() as i32;
    let decimals = usize::try_from(2 - magnitude).unwrap_or_default();
    grouped(&format!("{rounded:.decimals$}"))
}

/// The same without zeros at the end, for round numbers: `0.5`, `2`, `1,000`.
pub fn round(value: f64) -> String {
    let text = significant(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Sets the thousands of a decimal number apart.
pub fn grouped(number: &str) -> String {
    let (whole, fraction) = match number.find('.') {
        Some(point) => number.split_at(point),
        None => (number, ""),
    };
    let digits = whole.trim_start_matches('-');
    let mut text = whole[..whole.len() - digits.len()].to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_whatever_the_magnitude() {
        for (value, text) in [
            (0.0, "0"),
            (0.000_612, "0.000612"),
            (0.003_714, "0.00371"),
            (0.5464, "0.546"),
            (0.9996, "1.00"),
            (1.714, "1.71"),
            (9.996, "10.0"),
            (352.4, "352"),
            (999.7, "1,000"),
            (17_345.0, "17,300"),
            (1_234_567.0, "1,230,000"),
            (-1234.0, "-1,230"),
        ] {
            assert_eq!(significant(value), text, "{value}");
        }
    }

    #[test]
    fn round_numbers_end_without_zeros() {
        for (value, text) in [(0.0, "0"), (0.5, "0.5"), (2.0, "2"), (1000.0, "1,000")] {
            assert_eq!(round(value), text, "{value}");
        }
    }
}
