"""The conformance kit proves right rules and finds wrong ones, each with a message that says what is wrong."""
