"""Real programs at both ends of a middlebox that is killed: what do they notice?"""
