"""Healthy and faulty runs of many kinds of training, and how often each rule of evidence is right about them."""
