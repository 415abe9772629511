"""What the simulator is made of: who, when, how the heart fires and recovers, what the electrodes see, what holds."""
