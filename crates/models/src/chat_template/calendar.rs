//! The date, for templates that tell the model what day it is.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Seconds since 1970 in UTC.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Writes a moment in UTC by the directives of `strftime`; unknown directives stay as they are.
pub(super) fn strftime(format: &str, seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let first = days - u64::from(ordinal(year, month, day));
    let [hour, minute, second] = [second / 3600, second / 60 % 60, second % 60];
    let (weekday, month_name) = (DAYS[(days + 4) as usize % 7], MONTHS[month as usize - 1]);
    let twelve = (hour + 11) % 12 + 1;

    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(symbol) = rest.next() {
        if symbol != '%' {
            out.push(symbol);
            continue;
        }
        let directive = rest.next();
        let unpadded = directive == Some('-');
        let directive = if unpadded { rest.next() } else { directive };
        let mut padded = |number: u64| {
            out.push_str(&if unpadded { number.to_string() } else { format!("{number:02}") });
        };
        match directive {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => padded(year % 100),
            Some('m') => padded(month.into()),
            Some('d') => padded(day.into()),
            Some('H') => padded(hour),
            Some('I') => padded(twelve),
            Some('M') => padded(minute),
            Some('S') => padded(second),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('j') if unpadded => out.push_str(&(days - first + 1).to_string()),
            Some('j') => out.push_str(&format!("{:03}", days - first + 1)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('Z') => out.push_str("UTC"),
            Some('z') => out.push_str("+0000"),
            Some('%') => out.push('%'),
            other => out.extend(['%'].into_iter().chain(other)),
        }
    }
    out
}

/// Year, month and day of a day counted from 1 January 1970, by counting from 1 March of year 0, where leap days come
/// last ("chrono-compatible low-level date algorithms", Howard Hinnant).
fn civil(days: u64) -> (u64, u32, u32) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = (day - (153 * month + 2) / 5 + 1) as u32;
    let month = if month < 10 { month + 3 } else { month - 9 } as u32;
    (year + era * 400 + u64::from(month <= 2), month, date)
}

/// Days of the year that lie before a date.
fn ordinal(year: u64, month: u32, day: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
    before + day - 1 + u32::from(leap && month > 2)
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn moments_are_written_as_the_c_library_does() {
        let long = "%A %d %B %Y, %H:%M:%S, day %j";
        for (seconds, format, text) in [
            (0, long, "Thursday 01 January 1970, 00:00:00, day 001"),
            (951_782_399, long, "Monday 28 February 2000, 23:59:59, day 059"),
            (951_782_400, long, "Tuesday 29 February 2000, 00:00:00, day 060"),
            (978_307_199, long, "Sunday 31 December 2000, 23:59:59, day 366"),
            (4_107_542_400, long, "Monday 01 March 2100, 00:00:00, day 060"),
            (
                1_763_694_600,
                "%a %-d %b %y %-I:%M %p|%e|%F %T|%%|%q",
                "Fri 21 Nov 25 3:10 AM|21|2025-11-21 03:10:00|%|%q",
            ),
        ] {
            assert_eq!(strftime(format, seconds), text);
        }
    }
}
