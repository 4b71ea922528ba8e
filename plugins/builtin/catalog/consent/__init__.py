"""What a person consents to: an update in plain words, and a signed receipt of each decision."""
