"""Which settings of a model are good for one's own data: what is varied (`factors`), over which records
(`stream`), how a choice is judged (`trial`), which choices are tried and kept (`study`), and what came of it
(`effects`, `report`)."""
