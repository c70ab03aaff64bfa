"""The pack for mixtures of experts."""
