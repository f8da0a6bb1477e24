"""What a person, or a monitoring program, is told of the store and of each sender: facts, alarms, metrics, reports."""
