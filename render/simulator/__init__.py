"""The simulator's parts: person, rhythm, activation and repolarisation of the heart, electrodes, criteria."""
