"""Inner training problems: families of runs computed together, one compiled call an interval."""
