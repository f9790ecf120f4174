"""What is declared: experiments, metrics, families and corpora, built in or from plugins. Needs no torch."""
