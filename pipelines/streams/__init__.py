"""What streams have and files have not: messages, event times, latencies, and an end that somebody asks for."""
