//! Scenario files: what is submitted, and what every step then does.
