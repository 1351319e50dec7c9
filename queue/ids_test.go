package queue

const (
	idA = "AAAAAAAA"
	idB = "BBBBBBBB"
	idC = "CCCCCCCC"
)
