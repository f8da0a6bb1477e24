"""What both programs say to each other: frames, messages, who may say what when, and how two hosts are paired."""
