//! Recognises card numbers in text, so that none is ever stored, logged or repeated wherever a caller may have put it.
//!
//! A card number (ISO/IEC 7812) has 13 to 19 digits, begins with the digit of a payment network, and ends with the check digit of
//! Luhn's algorithm. People write it with single spaces, dots or dashes between its digits. A number that is none passes all three
//! by chance about once in twenty; a refused reference can be sent with a letter in front.

use std::borrow::Cow;

/// The fewest digits a card number has.
pub const MIN: usize = 13;
/// The most digits.
const MAX: usize = 19;

/// Whether a card number stands in the text. Digits that touch a letter belong to an id, not to a card.
pub fn is_in(text: &str) -> bool {
    let plain = in_ascii(text);
    let bytes = plain.as_bytes();
    let mut begin = 0;
    while begin < bytes.len() {
        let is_start = begin == 0 || !is_word(bytes[begin - 1]);
        if bytes[begin].is_ascii_digit() && is_start && begins_with_card(&bytes[begin..]) {
            return true;
        }
        begin += 1;
    }
    false
}

/// The text with the digits of other scripts' keyboards as ASCII's, and without zeros in front of a run of digits.
fn in_ascii(text: &str) -> Cow<'_, str> {
    if !text.contains("00") && text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        let digit = [0xff10, 0x0660, 0x06f0, 0x0966]
            .into_iter()
            .find_map(|zero| u32::from(c).checked_sub(zero).filter(|digit| *digit < 10))
            .and_then(|digit| char::from_digit(digit, 10));
        let c = digit.unwrap_or(c);
        let is_leading_zero =
            c == '0' && !plain.ends_with(|last: char| last.is_ascii_alphanumeric());
        if !is_leading_zero {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// Whether the text holds a secret key of this API, which is no data.
pub fn is_key_in(text: &str) -> bool {
    ["sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"]
        .iter()
        .any(|prefix| {
            text.match_indices(prefix).any(|(at, _)| {
                let rest = &text.as_bytes()[at + prefix.len()..];
                rest.iter()
                    .take_while(|byte| byte.is_ascii_alphanumeric())
                    .count()
                    >= 16
            })
        })
}

/// Whether the text begins with a card number that ends where a group of digits ends: an expiry or a security code may follow it.
fn begins_with_card(text: &[u8]) -> bool {
    let mut digits = Vec::with_capacity(MAX);
    let mut at = 0;
    while digits.len() < MAX && at < text.len() {
        let next = text.get(at + 1);
        if text[at].is_ascii_digit() {
            digits.push(text[at] - b'0');
            if !next.is_some_and(|&byte| is_word(byte)) && is_card(&digits) {
                return true;
            }
        } else if !matches!(text[at], b' ' | b'-' | b'.' | b'+' | b'/' | b'_' | b',')
            || !next.is_some_and(u8::is_ascii_digit)
        {
            return false;
        }
        at += 1;
    }
    false
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn is_card(digits: &[u8]) -> bool {
    // 2: Mastercard, Mir; 3: American Express, JCB, Diners; 4: Visa; 5: Mastercard; 6: UnionPay, Discover, Maestro.
    (MIN..=MAX).contains(&digits.len()) && matches!(digits[0], 2..=6) && luhn(digits)
}

/// ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match place % 2 {
            0 => u32::from(digit),
            _ => u32::from(digit) * 2 - if digit > 4 { 9 } else { 0 },
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_numbers_of_all_networks_are_found_however_they_are_written() {
        for number in [
            "4242424242424242",
            "4242 4242 4242 4242",
            "4242-4242-4242-4242",
            "card: 5555 5555 5555 4444, exp 12/30",
            "4242 4242 4242 4242 123",
            "4242424242424242 12 30",
            "12 4242-4242-4242-4242",
            "378282246310005",
            "6011111111111117",
            "3056930009020004",
            "6200000000000005",
            "2223003122003222",
            "汉字4242424242424242。",
            "00004242424242424242",
            "4242/4242/4242/4242",
            "4242_4242_4242_4242",
            "４２４２４２４２４２４２４２４２",
        ] {
            assert!(is_in(number), "{number}");
        }
    }

    #[test]
    fn what_is_no_card_number_passes() {
        for text in [
            "",
            "1999",
            "4242424242424241",
            "1760000000000",
            "ord4242424242424242",
            "4242424242424242x",
            "+49 30 901820",
            "2026-11-29 12:30:00",
            "424242424242424242424242",
        ] {
            assert!(!is_in(text), "{text}");
        }
    }
}
