//! Quantity: Kubernetes' numbers with suffixes, compared by value ("1Gi" is "1024Mi").

/// The value in billionths, exact; `None` for a text that is no quantity (grammar:
/// resource.Quantity of apimachinery).
#[must_use]
pub fn parse(text: &str) -> Option<i128> {
    let split = text
        .char_indices()
        .find(|(at, c)| {
            !(c.is_ascii_digit() || *c == '.' || (*at == 0 && (*c == '+' || *c == '-')))
        })
        .map_or(text.len(), |(at, _)| at);
    let (number, suffix) = text.split_at(split);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let tenth = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = digits.checked_mul(billionths(suffix)?)?;
    let value = scaled / tenth;
    Some(if negative { -value } else { value })
}

/// One unit of a suffix in billionths.
fn billionths(suffix: &str) -> Option<i128> {
    const ONE: i128 = 1_000_000_000;
    let binary = |power: u32| 1024_i128.checked_pow(power).and_then(|unit| unit.checked_mul(ONE));
    match suffix {
        "n" => Some(1),
        "u" => Some(1_000),
        "m" => Some(1_000_000),
        "" => Some(ONE),
        "k" => Some(ONE * 1_000),
        "M" => Some(ONE * 1_000_000),
        "G" => Some(ONE * 1_000_000_000),
        "T" => Some(ONE * 1_000_000_000_000),
        "P" => Some(ONE * 1_000_000_000_000_000),
        "E" => Some(ONE * 1_000_000_000_000_000_000),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        other => {
            let exponent: u32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_i128.checked_pow(exponent)?.checked_mul(ONE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn equal_values_are_equal_however_written() {
        for (a, b) in
            [("1Gi", "1024Mi"), ("0.5", "500m"), ("1e3", "1k"), ("1.5Gi", "1536Mi"), ("+2", "2")]
        {
            assert_eq!(parse(a), parse(b), "{a} and {b}");
            assert!(parse(a).is_some());
        }
        assert!(parse("1Gi") > parse("1G"));
        assert!(parse("-1") < parse("0"));
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", "Gi", "1.2.3", "8 Gi", "1Gb", "--1", "1-2", "e", "1e999"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
