module lab/podtool

go 1.26.0
